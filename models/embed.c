/* SPDX-License-Identifier: MIT */
/* Embeddings of texts: tokens, batches of texts of like length, the mean over a text's tokens as a
 * vector of length 1. */
#include "bert.h"
#include "say.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct text {
    int64_t index, length; /* of the text; its tokens */
    int32_t *tokens;
};

/* Everything that a call needs besides the model. */
struct job {
    attend_bert *m;
    struct text *text;      /* [n], in the end by length */
    int32_t *token, *start; /* [batch], [batch + 1] */
    float *out;
    int64_t n;
    char *err;
    size_t errlen;
};

static int no_memory(struct job *j)
{
    return at_say(j->err, j->errlen, ATTEND_ENOMEM, "no memory for %" PRId64 " texts", j->n);
}

/* Tokens of a text, cut to the model's limit; its last one stays [SEP]. */
static int tokenize(struct job *j, const attend_str *from, struct text *to)
{
    const int64_t limit = j->m->limit;
    int32_t *ids = malloc((from->n + 2) * sizeof *ids);
    if (!ids)
        return no_memory(j);
    to->length = attend_wordpiece_encode(j->m->wordpiece, from->s, from->n, ids);
    if (to->length > limit) {
        ids[limit - 1] = ids[to->length - 1];
        to->length = limit;
    }
    int32_t *fit = realloc(ids, (size_t)to->length * sizeof *ids);
    to->tokens = fit ? fit : ids;
    return 0;
}

/* The longest first; of the same length, as they came. */
static int by_length(const void *a, const void *b)
{
    const struct text *s = a, *t = b;
    if (s->length != t->length)
        return s->length > t->length ? -1 : 1;
    return (s->index > t->index) - (s->index < t->index);
}

/* out[d] = mean over the rows of hidden[row][d], as a vector of length 1 */
static void pool(const float *hidden, int64_t rows, int64_t width, float *out)
{
    double square = 0;
    for (int64_t d = 0; d < width; d++) {
        double sum = 0;
        for (int64_t i = 0; i < rows; i++)
            sum += (double)hidden[i * width + d];
        out[d] = (float)(sum / (double)rows);
        square += (double)out[d] * (double)out[d];
    }
    double norm = sqrt(square) > 1e-12 ? sqrt(square) : 1e-12;
    for (int64_t d = 0; d < width; d++)
        out[d] = (float)((double)out[d] / norm);
}

/* Texts [at, end) in one run. */
static int run_batch(struct job *j, int64_t at, int64_t end)
{
    attend_bert *m = j->m;
    j->start[0] = 0;
    for (int64_t i = at; i < end; i++) {
        const struct text *t = &j->text[i];
        memcpy(j->token + j->start[i - at], t->tokens, (size_t)t->length * sizeof *t->tokens);
        j->start[i - at + 1] = j->start[i - at] + (int32_t)t->length;
    }
    int status = attend_bert_run(m, j->token, j->start, end - at, m->hidden, j->err, j->errlen);
    for (int64_t i = at; status == 0 && i < end; i++)
        pool(m->hidden + j->start[i - at] * m->n.width, j->text[i].length, m->n.width,
             j->out + j->text[i].index * m->n.width);
    return status;
}

static int run_all(struct job *j)
{
    for (int64_t at = 0, end; at < j->n; at = end) {
        int64_t tokens = 0;
        for (end = at; end < j->n && tokens + j->text[end].length <= j->m->opts.batch; end++)
            tokens += j->text[end].length;
        int status = run_batch(j, at, end);
        if (status < 0)
            return status;
        if (j->m->opts.progress)
            j->m->opts.progress(j->m->opts.progress_arg, end, j->n);
    }
    return 0;
}

int attend_bert_embed(attend_bert *m, const attend_str *texts, int64_t n, float *out, char *err,
                      size_t errlen)
{
    const size_t batch = (size_t)m->opts.batch;
    struct job j = {.m = m, .out = out, .n = n, .err = err, .errlen = errlen};
    int status = 0;
    if (n < 0)
        return at_say(err, errlen, ATTEND_EINVAL, "%" PRId64 " texts", n);
    j.text = calloc((size_t)n + 1, sizeof *j.text);
    j.token = malloc(batch * sizeof *j.token);
    j.start = malloc((batch + 1) * sizeof *j.start);
    if (!j.text || !j.token || !j.start)
        status = no_memory(&j);
    for (int64_t i = 0; status == 0 && i < n; i++) {
        j.text[i].index = i;
        status = tokenize(&j, &texts[i], &j.text[i]);
    }
    if (status == 0) {
        qsort(j.text, (size_t)n, sizeof *j.text, by_length);
        status = run_all(&j);
    }
    for (int64_t i = 0; j.text && i < n; i++)
        free(j.text[i].tokens);
    free(j.text);
    free(j.token);
    free(j.start);
    return status;
}
