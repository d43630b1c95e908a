/* SPDX-License-Identifier: MIT */
/* attend logits: what a model says after each of a row of tokens. */
#include "model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const struct cmd_flag flags[] = {
    MODEL_FLAGS,
    {"--tokens", "T.npy", "tokens, integers of any size",                      NULL},
    {"--from",   "N",     "the first row: the logits after N tokens",          NULL},
    {"-o",       "L.npy", "where rows go: f32, one a token from the Nth on",   NULL},
    {"--step",   NULL,    "token by token through the cache, not all at once", NULL},
    {NULL,       NULL,    NULL,                                                NULL},
};

struct logits {
    const struct cmd_line *l;
    const char *file; /* of tokens */
    struct model model;
    int64_t n, from; /* tokens; those before the first row */
    int32_t *token;
    float *rows;
    int64_t bytes;
};

/* ---- tokens ---- */

/* uint16 is read as bf16, of which only the bits count here. */
static bool is_integer(attend_type type)
{
    return type == ATTEND_I8 || type == ATTEND_U8 || type == ATTEND_I32 || type == ATTEND_I64 ||
           type == ATTEND_BF16;
}

static int copy_tokens(struct logits *c, const attend_array *a)
{
    if (!is_integer(a->type))
        return cmd_fail(c->l, c->file, "the type is %s, want integers", attend_type_name(a->type));
    if (a->shape.rank != 1 || a->shape.dim[0] < 1 || a->shape.dim[0] > INT32_MAX)
        return cmd_fail(c->l, c->file, "want one axis with at least one token");
    c->n = a->shape.dim[0];
    c->token = malloc((size_t)c->n * sizeof *c->token);
    if (!c->token)
        return cmd_fail(c->l, c->file, "no memory for %" PRId64 " tokens", c->n);
    for (int64_t i = 0; i < c->n; i++) {
        int64_t token = cmd_integer_at(a, i);
        if (token < 0 || token > INT32_MAX)
            return cmd_fail(c->l, c->file, "token %" PRId64 " is %" PRId64, i, token);
        c->token[i] = (int32_t)token;
    }
    return CMD_DONE;
}

static int read_tokens(struct logits *c)
{
    char err[320];
    attend_array a;
    if (attend_npy_read(c->file, &a, err, sizeof err) < 0)
        return cmd_fail(c->l, NULL, "%s", err);
    int status = copy_tokens(c, &a);
    attend_free(a.data);
    if (status == CMD_DONE && c->from > c->n)
        status = cmd_fail(c->l, c->file, "--from is %" PRId64 ", and there are %" PRId64 " tokens",
                          c->from, c->n);
    return status;
}

/* ---- the run ---- */

/* Tokens [at, at + n), and the rows of those that have one. */
static int feed(struct logits *c, int64_t at, int64_t n)
{
    char err[320];
    int64_t first = c->from - 1 > at ? c->from - 1 : at,
            vocabulary = attend_llama_vocabulary(c->model.llama);
    if (first > at + n)
        first = at + n;
    float *row = first < at + n ? c->rows + (first - (c->from - 1)) * vocabulary : NULL;
    if (attend_llama_feed(c->model.llama, c->token + at, n, first - at, row, err, sizeof err) < 0)
        return cmd_fail(c->l, c->file, "%s", err);
    return CMD_DONE;
}

static int write_rows(struct logits *c)
{
    char err[320];
    const char *out = cmd_value(c->l, "-o");
    const int64_t vocabulary = attend_llama_vocabulary(c->model.llama);
    const attend_array a = {.type = ATTEND_F32,
                            .shape = ATTEND_SHAPE(c->n - c->from + 1, vocabulary),
                            .data = c->rows,
                            .bytes = c->bytes};
    if (attend_npy_write(out, &a, err, sizeof err) < 0)
        return cmd_fail(c->l, NULL, "%s", err);
    if (cmd_has(c->l, "--json"))
        printf("{\"type\": \"f32\", \"shape\": [%" PRId64 ", %" PRId64 "]}\n", c->n - c->from + 1,
               vocabulary);
    return CMD_DONE;
}

static int run_rows(struct logits *c)
{
    int status = CMD_DONE;
    c->bytes =
        (c->n - c->from + 1) * attend_llama_vocabulary(c->model.llama) * (int64_t)sizeof(float);
    c->rows = malloc((size_t)c->bytes);
    if (!c->rows)
        return cmd_fail(c->l, NULL, "no memory for %" PRId64 " bytes of logits", c->bytes);
    if (!cmd_has(c->l, "--step"))
        status = feed(c, 0, c->n);
    for (int64_t i = 0; cmd_has(c->l, "--step") && i < c->n && status == CMD_DONE; i++)
        status = feed(c, i, 1);
    return status == CMD_DONE ? write_rows(c) : status;
}

static int run_model(struct logits *c)
{
    int status = model_open(&c->model, c->l);
    if (status == CMD_DONE)
        status = model_make(&c->model, "--tokens", c->n, cmd_has(c->l, "--step") ? 1 : c->n);
    if (status == CMD_DONE)
        status = c->l->plan ? cmd_print_plan(c->l, attend_llama_plan(c->model.llama)) : run_rows(c);
    model_close(&c->model);
    return status;
}

static int run(const struct cmd_line *l)
{
    struct logits c = {.l = l, .file = cmd_value(l, "--tokens")};
    if (!c.file)
        return cmd_wrong(l, "--tokens is missing: which tokens?");
    if (!cmd_has(l, "--from"))
        return cmd_wrong(l, "--from is missing: after how many tokens does the first row come?");
    if (!cmd_has(l, "-o") && !l->plan)
        return cmd_wrong(l, "-o is missing: where do the logits go?");
    if (!cmd_int(l, "--from", 1, INT32_MAX, &c.from))
        return CMD_WRONG;
    int status = read_tokens(&c);
    if (status == CMD_DONE)
        status = run_model(&c);
    free(c.token);
    free(c.rows);
    return status;
}

const struct cmd_verb cmd_logits = {
    "logits",
    "-m MODEL.gguf --tokens T.npy --from N -o L.npy [flags]",
    "logits of a language model after each token",
    flags,
    run,
    true,
};
