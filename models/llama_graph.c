/* SPDX-License-Identifier: MIT */
/* Llama-family models (Touvron et al. 2023) as a graph on the public API: what a user of the
 * library would write.
 *
 * One graph serves prompts and decoding.  `tokens`, how many are fed at once, is its row dimension;
 * `outputs` is how many of these rows go through the last norm and the output matrix, which is the
 * largest of the model.  Keys and values are states, one pool a layer, in which row r is the token
 * at position r. */
#include "llama.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

/* ---- the keys of the file ---- */

static void key_name(char name[64], const char *key)
{
    snprintf(name, 64, "llama.%s", key);
}

/* *value is the default; in [min, max]. */
static void read_int(struct llama_build *b, const char *key, int64_t min, int64_t max,
                     int64_t *value)
{
    char name[64];
    if (b->status < 0)
        return;
    key_name(name, key);
    int found = attend_gguf_int(b->file, name, value, b->err, b->errlen);
    if (found < 0)
        b->status = found;
    else if (!found && *value < 0)
        REFUSE(b, ATTEND_EFORMAT, "the key '%s' is missing", name);
    else if (*value < min || *value > max)
        REFUSE(b, ATTEND_EFORMAT, "'%s' is %" PRId64 ", want %" PRId64 " to %" PRId64, name, *value,
               min, max);
}

static void read_float(struct llama_build *b, const char *key, float *value)
{
    char name[64];
    double x = (double)*value;
    if (b->status < 0)
        return;
    key_name(name, key);
    int found = attend_gguf_float(b->file, name, &x, b->err, b->errlen);
    if (found < 0)
        b->status = found;
    else if (!found && *value < 0)
        REFUSE(b, ATTEND_EFORMAT, "the key '%s' is missing", name);
    else if (!(x > 0 && x < 1e30))
        REFUSE(b, ATTEND_EFORMAT, "'%s' is %g, want a number above 0", name, x);
    *value = (float)x;
}

/* A string that must be `want`; where it is missing, that is fine if `optional`. */
static void want_str(struct llama_build *b, const char *name, const char *want, bool optional)
{
    attend_str s = {NULL, 0};
    if (b->status < 0)
        return;
    int found = attend_gguf_str(b->file, name, &s, b->err, b->errlen);
    if (found < 0)
        b->status = found;
    else if (!found && !optional)
        REFUSE(b, ATTEND_EFORMAT, "the key '%s' is missing", name);
    else if (found && (s.n != strlen(want) || memcmp(s.s, want, s.n) != 0))
        REFUSE(b, ATTEND_EUNSUPPORTED, "'%s' is '%.*s', and only '%s' is known here", name,
               s.n < 40 ? (int)s.n : 40, s.s, want);
}

void at_llama_read_keys(struct llama_build *b)
{
    enum { MANY = 1 << 20 };
    struct llama_sizes *n = &b->n;
    int64_t experts = 0;
    *n = (struct llama_sizes){.layers = -1,
                              .width = -1,
                              .hidden = -1,
                              .heads = -1,
                              .context = -1,
                              .rope_base = 10000,
                              .eps = -1};
    want_str(b, "general.architecture", "llama", false);
    read_int(b, "block_count", 1, 4096, &n->layers);
    read_int(b, "context_length", 1, INT32_MAX, &n->context);
    read_int(b, "embedding_length", 1, MANY, &n->width);
    read_int(b, "feed_forward_length", 1, MANY, &n->hidden);
    read_int(b, "attention.head_count", 1, 65536, &n->heads);
    n->groups = n->heads;
    read_int(b, "attention.head_count_kv", 1, 65536, &n->groups);
    if (b->status == 0 && n->heads % n->groups != 0)
        REFUSE(b, ATTEND_EFORMAT,
               "'llama.attention.head_count_kv' is %" PRId64 ", of which the %" PRId64
               " of head_count are no multiple",
               n->groups, n->heads);
    if (b->status < 0)
        return;
    n->dk = n->width / n->heads;
    read_int(b, "attention.key_length", 1, 576, &n->dk);
    n->dv = n->dk;
    read_int(b, "attention.value_length", 1, 576, &n->dv);
    n->rotated = n->dk;
    read_int(b, "rope.dimension_count", INT64_MIN, INT64_MAX, &n->rotated);
    if (n->rotated < 2 || n->rotated > n->dk || n->rotated % 2 != 0)
        REFUSE(b, ATTEND_EFORMAT,
               "'llama.rope.dimension_count' is %" PRId64
               ", want an even number from 2 to %" PRId64,
               n->rotated, n->dk);
    read_float(b, "rope.freq_base", &n->rope_base);
    read_float(b, "attention.layer_norm_rms_epsilon", &n->eps);
    read_int(b, "expert_count", 0, 0, &experts);
    want_str(b, "llama.rope.scaling.type", "none", true);
}

/* ---- weights ---- */

static void shape_text(const attend_shape *s, char *out, size_t size)
{
    size_t at = 0;
    for (int d = 0; d < s->rank && at < size; d++)
        at += (size_t)snprintf(out + at, size - at, "%s%" PRId64, d ? " x " : "", s->dim[d]);
}

static bool same_shape(const attend_shape *a, const attend_shape *b)
{
    bool same = a->rank == b->rank;
    for (int d = 0; same && d < a->rank; d++)
        same = a->dim[d] == b->dim[d];
    return same;
}

/* Finds a tensor of the file: 1, 0 where there is none, or a status. */
static int find(struct llama_build *b, const char *name, attend_gguf_tensor *t)
{
    if (b->status < 0)
        return b->status;
    int found = attend_gguf_tensor_get(b->file, name, t, b->err, b->errlen);
    if (found < 0)
        b->status = found;
    return found;
}

/* A tensor of the file as a constant of the graph: its shape, and that its numbers are numbers, is
 * checked, since kernels trust constants. */
static attend_tensor weight(struct llama_build *b, const char *name, attend_shape want)
{
    attend_gguf_tensor t;
    char got[96], wanted[96];
    int found = find(b, name, &t);
    if (found == 0)
        REFUSE(b, ATTEND_EFORMAT, "tensor '%s' is missing", name);
    if (found <= 0)
        return attend_none();
    shape_text(&t.shape, got, sizeof got);
    shape_text(&want, wanted, sizeof wanted);
    if (!same_shape(&t.shape, &want))
        REFUSE(b, ATTEND_EFORMAT, "tensor '%s' is %s, want %s", name, got, wanted);
    else
        b->status = attend_gguf_tensor_check(&t, b->err, b->errlen);
    if (b->status < 0)
        return attend_none();
    b->taken[b->ntaken++] = t.name;
    return attend_graph_const(b->g, name, t.type, t.shape, t.data, t.bytes);
}

static attend_tensor layer_weight(struct llama_build *b, int64_t layer, const char *what,
                                  attend_shape shape)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%" PRId64 ".%s.weight", layer, what);
    return weight(b, name, shape);
}

static attend_tensor linear(struct llama_build *b, attend_tensor x, int64_t layer, const char *what,
                            int64_t in, int64_t out)
{
    return attend_graph_matmul_nt(b->g, x, layer_weight(b, layer, what, ATTEND_SHAPE(out, in)));
}

/* A tensor that the graph has no place for changes what the model computes (a bias, experts):
 * better refused than left out.  It ends at the first such, so it looks at no more than ntaken + 1
 * names. */
static void refuse_others(struct llama_build *b)
{
    const char *name;
    for (int64_t i = 0; b->status >= 0 && (name = attend_gguf_tensor_name(b->file, i)); i++) {
        bool taken = false;
        for (int64_t k = 0; !taken && k < b->ntaken; k++)
            taken = b->taken[k] == name;
        if (!taken)
            REFUSE(b, ATTEND_EUNSUPPORTED, "tensor '%.64s' has no place in a Llama model", name);
    }
}

/* ---- the graph ---- */

/* (tokens, heads x d) as (1, heads, tokens, d) */
static attend_tensor split_heads(struct llama_build *b, attend_tensor x, int64_t heads, int64_t d)
{
    const int swap[] = {0, 2, 1, 3};
    int64_t tokens = attend_tensor_shape(x).dim[0];
    return attend_graph_permute(
        b->g, attend_graph_reshape(b->g, x, ATTEND_SHAPE(1, tokens, heads, d)), swap);
}

static attend_tensor join_heads(struct llama_build *b, attend_tensor x)
{
    const int swap[] = {0, 2, 1, 3};
    attend_shape s = attend_tensor_shape(x);
    return attend_graph_reshape(b->g, attend_graph_permute(b->g, x, swap),
                                ATTEND_SHAPE(s.dim[2], s.dim[1] * s.dim[3]));
}

/* The pool of a layer, with the new rows at their positions. */
static attend_tensor remember(struct llama_build *b, char which, int64_t layer, attend_tensor rows)
{
    char name[32];
    int64_t d = attend_tensor_shape(rows).dim[3];
    snprintf(name, sizeof name, "%c%" PRId64, which, layer);
    attend_tensor pool = attend_graph_state(b->g, name, b->opts.kv,
                                            ATTEND_SHAPE(1, b->n.groups, b->opts.context, d));
    return attend_graph_append(b->g, pool, rows, b->position);
}

/* (1, groups, rows, d) with each group repeated for the heads that read it */
static attend_tensor repeat_heads(struct llama_build *b, attend_tensor x)
{
    attend_shape s = attend_tensor_shape(x);
    int64_t g = s.dim[1], rows = s.dim[2], d = s.dim[3], times = b->n.heads / g;
    x = attend_graph_reshape(b->g, x, ATTEND_SHAPE(1, g, 1, rows, d));
    x = attend_graph_expand(b->g, x, ATTEND_SHAPE(1, g, times, rows, d));
    return attend_graph_reshape(b->g, x, ATTEND_SHAPE(1, g * times, rows, d));
}

void at_llama_map_name(char name[24], int64_t layer)
{
    snprintf(name, 24, "map%" PRId64, layer);
}

/* Attention whose weights are a result of the graph, by a second pass. */
static attend_tensor mapped_attention(struct llama_build *b, int64_t layer, attend_tensor q,
                                      attend_tensor k, attend_tensor v,
                                      const attend_attention_opts *opts)
{
    char name[24];
    attend_tensor o = attend_graph_attention(b->g, q, k, v, opts, NULL);
    at_llama_map_name(name, layer);
    attend_graph_output(
        b->g, name, attend_graph_attention_weights(b->g, q, k, attend_none(), opts, b->kept, NULL));
    return o;
}

/* Row i sees the keys up to its own: the rows of the pool that are used end with the last row's. */
static attend_tensor attention(struct llama_build *b, int64_t layer, attend_tensor q,
                               attend_tensor k, attend_tensor v)
{
    attend_attention_opts opts;
    attend_attention_opts_init(&opts);
    opts.scale = (float)(1 / sqrt((double)b->n.dk));
    opts.mask.causal = 1;
    opts.mask.align = ATTEND_BOTTOM_RIGHT;
    opts.mask.kv_used = b->used;
    if (b->kept)
        return mapped_attention(b, layer, q, k, v, &opts);
    if (!b->opts.composed)
        return attend_graph_attention(b->g, q, k, v, &opts, NULL);
    attend_tensor s = attend_graph_matmul_nt(b->g, q, repeat_heads(b, k));
    s = attend_graph_mask(b->g, attend_graph_scale(b->g, s, opts.scale), &opts.mask);
    return attend_graph_matmul(b->g, attend_graph_softmax(b->g, s), repeat_heads(b, v));
}

/* Files of this architecture keep Q and K so that neighbouring channels are rotated together. */
static attend_tensor rotate(struct llama_build *b, attend_tensor x, attend_tensor factors)
{
    attend_rope_opts opts;
    attend_rope_opts_init(&opts);
    opts.pairing = ATTEND_ROPE_INTERLEAVED;
    opts.dims = b->n.rotated;
    opts.base = b->n.rope_base;
    opts.factors = factors;
    return attend_graph_rope(b->g, x, b->position, &opts);
}

static attend_tensor layer(struct llama_build *b, int64_t i, attend_tensor x, attend_tensor factors)
{
    const struct llama_sizes *n = &b->n;
    attend_graph *g = b->g;
    attend_tensor h, q, k, v, gate, up;
    h = attend_graph_rms_norm(g, x, layer_weight(b, i, "attn_norm", ATTEND_SHAPE(n->width)),
                              n->eps);
    q = split_heads(b, linear(b, h, i, "attn_q", n->width, n->heads * n->dk), n->heads, n->dk);
    k = split_heads(b, linear(b, h, i, "attn_k", n->width, n->groups * n->dk), n->groups, n->dk);
    v = split_heads(b, linear(b, h, i, "attn_v", n->width, n->groups * n->dv), n->groups, n->dv);
    q = rotate(b, q, factors);
    k = remember(b, 'k', i, rotate(b, k, factors));
    v = remember(b, 'v', i, v);
    h = join_heads(b, attention(b, i, q, k, v));
    x = attend_graph_add(g, x, linear(b, h, i, "attn_output", n->heads * n->dv, n->width));
    h = attend_graph_rms_norm(g, x, layer_weight(b, i, "ffn_norm", ATTEND_SHAPE(n->width)), n->eps);
    gate = attend_graph_silu(g, linear(b, h, i, "ffn_gate", n->width, n->hidden));
    up = linear(b, h, i, "ffn_up", n->width, n->hidden);
    h = linear(b, attend_graph_mul(g, gate, up), i, "ffn_down", n->hidden, n->width);
    return attend_graph_add(g, x, h);
}

/* The embedding, which says how many tokens there are. */
static attend_tensor embedding(struct llama_build *b)
{
    attend_gguf_tensor t = {.shape.rank = 0};
    int found = find(b, "token_embd.weight", &t);
    b->n.vocabulary = found > 0 ? t.shape.dim[0] : 0;
    if (found > 0 && (b->n.vocabulary < 1 || b->n.vocabulary > INT32_MAX))
        REFUSE(b, ATTEND_EFORMAT, "tensor 'token_embd.weight' has %" PRId64 " rows",
               b->n.vocabulary);
    return weight(b, "token_embd.weight", ATTEND_SHAPE(b->n.vocabulary, b->n.width));
}

void at_llama_build_graph(struct llama_build *b)
{
    const struct llama_sizes *n = &b->n;
    attend_graph *g = b->g;
    char label[32];
    attend_gguf_tensor t;
    int64_t tokens = attend_graph_dim(g, "tokens", 1, b->opts.batch);
    int64_t outputs = attend_graph_dim(g, "outputs", 0, b->opts.batch);
    attend_tensor token = attend_graph_input(g, "token", ATTEND_I32, ATTEND_SHAPE(tokens));
    attend_tensor row = attend_graph_input(g, "row", ATTEND_I32, ATTEND_SHAPE(outputs));
    b->position = attend_graph_input(g, "position", ATTEND_I32, ATTEND_SHAPE(1, tokens));
    b->used = attend_graph_input(g, "used", ATTEND_I32, ATTEND_SHAPE(1));
    attend_tensor table = embedding(b), out = table, factors = attend_none();
    if (find(b, "rope_freqs.weight", &t) > 0)
        factors = weight(b, "rope_freqs.weight", ATTEND_SHAPE(n->rotated / 2));
    attend_graph_label(g, "embed");
    attend_tensor x = attend_graph_gather(g, table, token);
    for (int64_t i = 0; i < n->layers && b->status >= 0; i++) {
        snprintf(label, sizeof label, "l%" PRId64, i);
        attend_graph_label(g, label);
        x = layer(b, i, x, factors);
        if (b->opts.progress)
            b->opts.progress(b->opts.progress_arg, i + 1, n->layers);
    }
    attend_graph_label(g, "head");
    x = attend_graph_gather(g, x, row);
    x = attend_graph_rms_norm(g, x, weight(b, "output_norm.weight", ATTEND_SHAPE(n->width)),
                              n->eps);
    if (find(b, "output.weight", &t) > 0)
        out = weight(b, "output.weight", ATTEND_SHAPE(n->vocabulary, n->width));
    x = attend_graph_matmul_nt(g, x, out);
    if (!b->kept) /* maps need nothing behind the last of them: it dies, its weights with it */
        attend_graph_output(g, "logits", x);
    refuse_others(b);
}
