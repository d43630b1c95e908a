/* SPDX-License-Identifier: MIT */
/* attend embed: sentences to vectors that lie close where their meanings do. */
#include "cmd.h"
#include "models.h"
#include "os.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cmd_flag flags[] = {
    {"-m",        "DIR",     "the model: config.json, model.safetensors, vocab.txt",           NULL},
    {"-o",        "OUT.npy", "where embeddings go, f32, a row a sentence; without it, stdout", NULL},
    {"--batch",   "N",       "tokens that go through the model at once (1024)",                NULL},
    {"--nearest", NULL,      "instead: for each sentence the one that is closest to it",       NULL},
    {NULL,        NULL,      NULL,                                                             NULL},
};

struct embed {
    const struct cmd_line *l;
    const char *dir;
    attend_ctx *ctx;
    attend_bert *model;
    char *text; /* the file */
    size_t size;
    attend_str *line; /* [n], in text */
    int64_t n;
    float *out; /* [n, width] */
    int64_t ns;
};

/* ---- sentences ---- */

static int read_all(struct embed *e, FILE *f, const char *name)
{
    size_t room = 0, got = 1;
    while (got > 0) {
        if (e->size == room) {
            room = room ? 2 * room : 1 << 16;
            char *more = realloc(e->text, room);
            if (!more)
                return cmd_fail(e->l, name, "no memory for %zu bytes of text", room);
            e->text = more;
        }
        got = fread(e->text + e->size, 1, room - e->size, f);
        e->size += got;
    }
    return ferror(f) ? cmd_fail(e->l, name, "it cannot be read") : CMD_DONE;
}

/* Lines, of which an empty one is a sentence too; what follows the last one's end is none. */
static int cut_lines(struct embed *e)
{
    size_t most = 1;
    for (size_t i = 0; i < e->size; i++)
        most += e->text[i] == '\n';
    e->line = malloc(most * sizeof *e->line);
    if (!e->line)
        return cmd_fail(e->l, NULL, "no memory for %zu sentences", most);
    for (const char *at = e->text, *end = e->text + e->size; at < end;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((stop ? stop : end) - at);
        e->line[e->n++] = (attend_str){at, length};
        at += length + 1;
    }
    return CMD_DONE;
}

static int read_sentences(struct embed *e)
{
    const char *file = e->l->narg > 0 ? e->l->arg[0] : NULL;
    if (!file && !cmd_has(e->l, "--quiet") && at_os_is_terminal(0))
        fprintf(stderr, "sentences, one a line, and then Ctrl-D:\n");
    FILE *f = file ? fopen(file, "rb") : stdin;
    if (!f)
        return cmd_fail(e->l, file, "it cannot be opened");
    int status = read_all(e, f, file ? file : "the standard input");
    if (file)
        fclose(f);
    return status == CMD_DONE ? cut_lines(e) : status;
}

/* ---- the run ---- */

/* A bar that is written over, for a person who waits; gone when all is done. */
static void show_progress(void *arg, int64_t done, int64_t all)
{
    enum { WIDTH = 40 };
    static const char full[] = "########################################";
    int filled = (int)(WIDTH * done / all);
    (void)arg;
    fprintf(stderr, "\r[%-*.*s] %" PRId64 " of %" PRId64, WIDTH, filled, full, done, all);
    if (done == all)
        fprintf(stderr, "\r%*s\r", WIDTH + 44, "");
    fflush(stderr);
}

static int open_model(struct embed *e)
{
    char err[1400];
    attend_bert_opts opts;
    attend_bert_opts_init(&opts);
    opts.device = cmd_value(e->l, "--device");
    if (!cmd_int(e->l, "--batch", 1, 1 << 24, &opts.batch))
        return CMD_WRONG;
    if (!cmd_has(e->l, "--quiet") && at_os_is_terminal(2))
        opts.progress = show_progress;
    int status = cmd_context(e->l, &e->ctx);
    if (status == CMD_DONE && !at_os_is_folder(e->dir))
        return cmd_fail(e->l, e->dir,
                        "there is no such folder; a sentence model is a folder with "
                        "config.json, model.safetensors and vocab.txt");
    if (status == CMD_DONE &&
        attend_bert_open(e->ctx, e->dir, &opts, &e->model, err, sizeof err) < 0)
        status = cmd_fail(e->l, NULL, "%s", err);
    return status;
}

static int compute(struct embed *e)
{
    char err[400];
    const int64_t width = attend_bert_width(e->model);
    e->out = malloc(((size_t)e->n * (size_t)width + 1) * sizeof *e->out);
    if (!e->out)
        return cmd_fail(e->l, NULL, "no memory for %" PRId64 " embeddings", e->n);
    int64_t start = at_os_now();
    if (attend_bert_embed(e->model, e->line, e->n, e->out, err, sizeof err) < 0)
        return cmd_fail(e->l, e->dir, "%s", err);
    e->ns = at_os_now() - start;
    return CMD_DONE;
}

/* The tokens that a sentence has before it is cut. */
static int print_ids(const struct embed *e, attend_str text)
{
    int32_t *id = malloc((text.n + 2) * sizeof *id);
    if (!id)
        return cmd_fail(e->l, NULL, "no memory for the tokens of %zu bytes", text.n);
    int64_t n = attend_wordpiece_encode(attend_bert_wordpiece(e->model), text.s, text.n, id);
    for (int64_t i = 0; i < n; i++)
        printf("%s%" PRId32, i ? ", " : "", id[i]);
    free(id);
    return CMD_DONE;
}

static int print_lines(const struct embed *e)
{
    const int64_t width = attend_bert_width(e->model);
    for (int64_t i = 0; i < e->n; i++) {
        printf("{\"text\": ");
        cmd_print_json_bytes(e->line[i].s, e->line[i].n);
        printf(", \"ids\": [");
        if (print_ids(e, e->line[i]) != CMD_DONE)
            return CMD_FAILED;
        printf("], \"embedding\": [");
        for (int64_t d = 0; d < width; d++)
            printf("%s%.9g", d ? ", " : "", (double)e->out[i * width + d]);
        printf("]}\n");
    }
    return CMD_DONE;
}

/* The cosine of the angle between two embeddings, which have length 1. */
static double likeness(const struct embed *e, int64_t a, int64_t b)
{
    const int64_t width = attend_bert_width(e->model);
    double sum = 0;
    for (int64_t d = 0; d < width; d++)
        sum += (double)e->out[a * width + d] * (double)e->out[b * width + d];
    return sum;
}

static void print_nearest(const struct embed *e)
{
    for (int64_t i = 0; i < e->n; i++) {
        int64_t nearest = -1;
        double most = -2;
        for (int64_t k = 0; k < e->n; k++) {
            double x = k == i ? -2 : likeness(e, i, k);
            if (x > most) {
                most = x;
                nearest = k;
            }
        }
        if (nearest >= 0)
            printf("%.3f  %.*s  ~  %.*s\n", most, (int)e->line[i].n, e->line[i].s,
                   (int)e->line[nearest].n, e->line[nearest].s);
    }
}

static int write_file(const struct embed *e, const char *file)
{
    char err[320];
    const int64_t width = attend_bert_width(e->model);
    const attend_array a = {.type = ATTEND_F32,
                            .shape = ATTEND_SHAPE(e->n, width),
                            .data = e->out,
                            .bytes = e->n * width * (int64_t)sizeof *e->out};
    if (attend_npy_write(file, &a, err, sizeof err) < 0)
        return cmd_fail(e->l, NULL, "%s", err);
    double seconds = (double)e->ns / 1e9, rate = e->ns > 0 ? (double)e->n / seconds : 0;
    if (cmd_has(e->l, "--json"))
        printf("{\"texts\": %" PRId64 ", \"width\": %" PRId64
               ", \"seconds\": %.6g, \"texts_per_second\": %.6g}\n",
               e->n, width, seconds, rate);
    else if (!cmd_has(e->l, "--quiet"))
        fprintf(stderr, "%" PRId64 " sentences in %.2f s, %.0f a second\n", e->n, seconds, rate);
    return CMD_DONE;
}

static int run_model(struct embed *e)
{
    int status = open_model(e);
    if (status == CMD_DONE && e->l->plan)
        return cmd_print_plan(e->l, attend_bert_plan(e->model));
    if (status == CMD_DONE)
        status = read_sentences(e);
    if (status == CMD_DONE)
        status = compute(e);
    if (status == CMD_DONE && cmd_has(e->l, "-o"))
        return write_file(e, cmd_value(e->l, "-o"));
    if (status == CMD_DONE && cmd_has(e->l, "--nearest"))
        print_nearest(e);
    else if (status == CMD_DONE)
        status = print_lines(e);
    return status;
}

static int run(const struct cmd_line *l)
{
    struct embed e = {.l = l, .dir = cmd_value(l, "-m")};
    if (!e.dir)
        return cmd_wrong(l, "-m is missing: which folder has the model? ./quickstart --embeddings "
                            "fetches one");
    if (l->narg > 1)
        return cmd_wrong(l, "want one file of sentences, not %d", l->narg);
    int status = run_model(&e);
    attend_bert_free(e.model);
    attend_ctx_free(e.ctx);
    free(e.text);
    free(e.line);
    free(e.out);
    return status;
}

const struct cmd_verb cmd_embed = {
    "embed",
    "-m DIR [FILE] [flags]",
    "sentence embeddings: sentences, one a line, to vectors",
    flags,
    run,
    true,
};
