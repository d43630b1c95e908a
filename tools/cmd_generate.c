/* SPDX-License-Identifier: MIT */
/* attend generate: text from a language model, shown as it is made. */
#include "chat.h"
#include "model.h"
#include "os.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cmd_flag flags[] = {
    MODEL_FLAGS,
    {"-p",            "PROMPT", "what the text begins with; with --chat, what is said to the model", NULL},
    {"-n",            "N",      "how many tokens at most (128)",                                     NULL},
    {"--interactive", NULL,     "a conversation, a line a turn; /help there says more",              NULL},
    {"--chat",        NULL,     "wraps the prompt as the model's chat template does",                NULL},
    {"--temp",        "T",      "0 takes the likeliest token, more is more surprising (0)",          NULL},
    {"--top-k",       "K",      "chooses among the K likeliest tokens; 0: all (0)",                  NULL},
    {"--top-p",       "P",      "chooses among the likeliest that hold P of the probability (1)",    NULL},
    {"--seed",        "N",      "another seed is another choice (0)",                                NULL},
    {"--logits",      "L.npy",  "f32, row i is what token i was chosen from",                        NULL},
    {NULL,            NULL,     NULL,                                                                NULL},
};

enum { BATCH = 512 }; /* tokens of a long prompt that go through the model at once */

struct generate {
    const struct cmd_line *l;
    struct model model;
    attend_tokenizer *tokenizer;
    attend_sampler *sampler;
    int32_t *id;            /* the prompt's, then the new ones */
    int64_t prompt, n, new; /* tokens of the prompt; at most; so far */
    bool ended;             /* by an end token, which counts as new */
    float *rows;            /* logits: of all new tokens with --logits, else of the next one */
    int64_t room;           /* rows that fit */
    attend_utf8 tail;
    struct {
        char *p;
        size_t n, room;
    } text; /* with --json */
    int64_t prompt_ns, new_ns;
};

/* ---- the prompt ---- */

/* Tokens of a text after those that are there.  Names of control tokens are these tokens, so that a
 * template may be written by hand. */
static int encode(struct generate *x, const char *text, size_t n)
{
    char err[320];
    int64_t count =
        attend_tokenizer_encode(x->tokenizer, text, n, 1, x->id + x->prompt, err, sizeof err);
    if (count < 0)
        return cmd_fail(x->l, NULL, "the prompt: %s", err);
    x->prompt += count;
    return CMD_DONE;
}

static int make_ids(struct generate *x, size_t n)
{
    x->id = malloc((n + 1) * sizeof *x->id);
    return x->id ? CMD_DONE : cmd_fail(x->l, NULL, "no memory for %zu bytes of prompt", n);
}

/* The template has the start token in its text. */
static int read_chat(struct generate *x, const char *said)
{
    char err[320], *text;
    int64_t n = attend_chat_wrap(x->model.gguf, said, strlen(said), &text, err, sizeof err);
    if (n < 0)
        return cmd_fail(x->l, x->model.file, "%s", err);
    int status = make_ids(x, (size_t)n);
    if (status == CMD_DONE)
        status =
            encode(x, said, strlen(said)); /* so that what is wrong there is told as it stands */
    x->prompt = 0;
    if (status == CMD_DONE)
        status = encode(x, text, (size_t)n);
    attend_free(text);
    return status;
}

static int read_prompt(struct generate *x)
{
    const char *text = cmd_value(x->l, "-p");
    const int32_t bos = attend_tokenizer_bos(x->tokenizer);
    if (cmd_has(x->l, "--chat"))
        return read_chat(x, text);
    int status = make_ids(x, strlen(text));
    if (status != CMD_DONE)
        return status;
    if (bos >= 0)
        x->id[x->prompt++] = bos;
    status = encode(x, text, strlen(text));
    if (status == CMD_DONE && x->prompt == 0)
        status = cmd_fail(x->l, NULL, "the prompt is empty, and this model has no start token");
    return status;
}

/* ---- what comes out ---- */

static int keep_text(struct generate *x, const char *text, size_t n)
{
    if (x->text.n + n > x->text.room) {
        size_t room = 2 * (x->text.n + n);
        char *p = realloc(x->text.p, room);
        if (!p)
            return cmd_fail(x->l, NULL, "no memory for %zu bytes of text", room);
        x->text.p = p;
        x->text.room = room;
    }
    memcpy(x->text.p + x->text.n, text, n);
    x->text.n += n;
    return CMD_DONE;
}

/* Bytes of a token; 0 of them end the text. */
static int put_text(struct generate *x, const char *bytes, size_t n)
{
    char *out = malloc(3 * (n + 3));
    if (!out)
        return cmd_fail(x->l, NULL, "no memory for a token of %zu bytes", n);
    int status = CMD_DONE;
    size_t ready = attend_utf8_push(&x->tail, bytes, n, out);
    if (ready > 0 && cmd_has(x->l, "--json"))
        status = keep_text(x, out, ready);
    else if (ready > 0 && (fwrite(out, 1, ready, stdout) != ready || fflush(stdout) != 0))
        status = CMD_FAILED; /* attend.c tells of it */
    free(out);
    return status;
}

static int put_token(struct generate *x, int32_t id)
{
    attend_str piece = attend_tokenizer_piece(x->tokenizer, id);
    bool shown = attend_tokenizer_kind(x->tokenizer, id) == ATTEND_TOKEN_TEXT && piece.n > 0;
    return shown ? put_text(x, piece.s, piece.n) : CMD_DONE;
}

static void print_ids(const char *name, const int32_t *id, int64_t n)
{
    printf("\"%s\": [", name);
    for (int64_t i = 0; i < n; i++)
        printf("%s%" PRId32, i ? ", " : "", id[i]);
    printf("], ");
}

static double per_second(int64_t n, int64_t ns)
{
    return ns > 0 ? 1e9 * (double)n / (double)ns : 0;
}

/* The first new token comes out of the prompt, so the others are what generating took. */
static void print_end(const struct generate *x)
{
    int64_t steps = x->new > 1 ? x->new - 1 : 0;
    double prompt = per_second(x->prompt, x->prompt_ns), new = per_second(steps, x->new_ns);
    if (cmd_has(x->l, "--json")) {
        printf("{");
        print_ids("prompt_ids", x->id, x->prompt);
        print_ids("ids", x->id + x->prompt, x->new);
        printf("\"text\": ");
        cmd_print_json_bytes(x->text.p ? x->text.p : "", x->text.n);
        printf(", \"stop\": \"%s\", \"prompt_tokens_per_second\": %.6g, "
               "\"generation_tokens_per_second\": %.6g}\n",
               x->ended ? "end" : "length", prompt, new);
        return;
    }
    printf("\n");
    fflush(stdout);
    if (!cmd_has(x->l, "--quiet"))
        fprintf(stderr,
                "%" PRId64 " tokens of prompt, %.1f a second; %" PRId64 " new, %.1f a second\n",
                x->prompt, prompt, x->new, new);
}

static int write_logits(struct generate *x)
{
    char err[320];
    const char *file = cmd_value(x->l, "--logits");
    const int64_t vocabulary = attend_llama_vocabulary(x->model.llama);
    const attend_array a = {.type = ATTEND_F32,
                            .shape = ATTEND_SHAPE(x->new, vocabulary),
                            .data = x->rows,
                            .bytes = x->new *vocabulary *(int64_t)sizeof(float)};
    if (file && attend_npy_write(file, &a, err, sizeof err) < 0)
        return cmd_fail(x->l, NULL, "%s", err);
    return CMD_DONE;
}

/* ---- the run ---- */

/* Where the logits of the next token go; NULL and a message: no memory. */
static float *next_row(struct generate *x)
{
    const int64_t at = cmd_has(x->l, "--logits") ? x->new : 0;
    const size_t row = (size_t)attend_llama_vocabulary(x->model.llama) * sizeof(float);
    if (at == x->room) {
        int64_t room = at ? 2 * at : 1;
        float *rows = realloc(x->rows, (size_t)room * row);
        if (!rows) {
            cmd_fail(x->l, NULL, "no memory for %" PRId64 " rows of logits", room);
            return NULL;
        }
        x->rows = rows;
        x->room = room;
    }
    return (float *)((char *)x->rows + (size_t)at * row);
}

/* Feeds tokens; the logits after the last one are at *row. */
static int feed(struct generate *x, const int32_t *id, int64_t n, int64_t *ns, float **row)
{
    char err[320];
    int64_t start = at_os_now();
    *row = next_row(x);
    if (!*row)
        return CMD_FAILED;
    if (attend_llama_feed(x->model.llama, id, n, n - 1, *row, err, sizeof err) < 0)
        return cmd_fail(x->l, x->model.file, "%s", err);
    *ns += at_os_now() - start;
    return CMD_DONE;
}

/* Chooses the next token and shows it. */
static int choose(struct generate *x, const float *row)
{
    char err[320];
    int32_t id = attend_sampler_pick(x->sampler, row, err, sizeof err);
    if (id < 0)
        return cmd_fail(x->l, x->model.file, "%s", err);
    x->id[x->prompt + x->new ++] = id;
    x->ended = attend_tokenizer_kind(x->tokenizer, id) == ATTEND_TOKEN_END;
    return put_token(x, id);
}

static int generate(struct generate *x)
{
    float *row;
    int32_t *id = realloc(x->id, (size_t)(x->prompt + x->n) * sizeof *id);
    if (!id)
        return cmd_fail(x->l, NULL, "no memory for %" PRId64 " tokens", x->prompt + x->n);
    x->id = id;
    int status = feed(x, id, x->prompt, &x->prompt_ns, &row);
    while (status == CMD_DONE && x->new < x->n && !x->ended) {
        status = choose(x, row);
        if (status == CMD_DONE && x->new < x->n && !x->ended)
            status = feed(x, x->id + x->prompt + x->new - 1, 1, &x->new_ns, &row);
    }
    if (status == CMD_DONE)
        status = put_text(x, NULL, 0);
    return status == CMD_DONE ? write_logits(x) : status;
}

static int run_model(struct generate *x)
{
    char err[320];
    if (attend_tokenizer_new(x->model.gguf, &x->tokenizer, err, sizeof err) < 0)
        return cmd_fail(x->l, x->model.file, "%s", err);
    int status = read_prompt(x);
    if (status == CMD_DONE)
        status = model_make(&x->model, "prompt and -n", x->prompt + x->n,
                            x->prompt < BATCH ? x->prompt : BATCH);
    if (status == CMD_DONE && x->l->plan)
        return cmd_print_plan(x->l, attend_llama_plan(x->model.llama));
    if (status == CMD_DONE)
        status = model_sampler(&x->model, &x->sampler);
    if (status == CMD_DONE)
        status = generate(x);
    if (status == CMD_DONE)
        print_end(x);
    return status;
}

static int run(const struct cmd_line *l)
{
    struct generate x = {.l = l, .n = 128};
    if (cmd_has(l, "--interactive"))
        return chat_run(l);
    if (!cmd_has(l, "-p"))
        return cmd_wrong(l, "-p is missing: what does the text begin with?");
    if (!cmd_int(l, "-n", 0, INT32_MAX, &x.n))
        return CMD_WRONG;
    int status = model_open(&x.model, l);
    if (status == CMD_DONE)
        status = run_model(&x);
    attend_sampler_free(x.sampler);
    attend_tokenizer_free(x.tokenizer);
    model_close(&x.model);
    free(x.id);
    free(x.rows);
    free(x.text.p);
    return status;
}

const struct cmd_verb cmd_generate = {
    "generate", "-m MODEL.gguf -p PROMPT -n N [flags]", "text from a language model", flags, run,
    true,
};
