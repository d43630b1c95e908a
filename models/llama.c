/* SPDX-License-Identifier: MIT */
/* Llama-family models (Touvron et al. 2023) as a graph on the public API: what a user of the
 * library would write.
 *
 * One graph serves prompts and decoding.  `tokens`, how many are fed at once, is its row dimension;
 * `outputs` is how many of these rows go through the last norm and the output matrix, which is the
 * largest of the model.  Keys and values are states, one pool a layer, in which row r is the token
 * at position r. */
#include "models.h"
#include "say.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* What the keys of the file say. */
struct sizes {
    int64_t layers, width, hidden, heads, groups, dk, dv, rotated, vocabulary, context;
    float rope_base, eps;
};

struct attend_llama {
    struct sizes n;
    attend_type kv;
    int64_t context, batch, fed;
    attend_plan *plan;
    attend_exec *exec;
    void *cache;                     /* all layers' keys and values */
    int32_t *token, *position, *row; /* [batch]: inputs of a run */
    int32_t used;                    /* input: rows of the cache after it */
    float *maps;   /* [layers, heads, cells]: where attend_llama_maps wants them */
    int64_t cells; /* of a head's map; 0: no maps */
};

/* What building goes through; like a graph, it keeps the first error. */
struct build {
    const attend_gguf *file;
    attend_graph *g;
    struct sizes n;
    attend_llama_opts opts;
    const char **taken; /* names of tensors that the graph has */
    int64_t ntaken;
    attend_tensor position, used;
    const attend_weights_opts *kept; /* of maps; NULL: there are none */
    int status;
    char *err;
    size_t errlen;
};

#define REFUSE(b, code, ...)                                                                       \
    ((b)->status < 0 ? (b)->status                                                                 \
                     : ((b)->status = at_say((b)->err, (b)->errlen, code, __VA_ARGS__)))

/* ---- the keys of the file ---- */

static void key_name(char name[64], const char *key)
{
    snprintf(name, 64, "llama.%s", key);
}

/* *value is the default; in [min, max]. */
static void read_int(struct build *b, const char *key, int64_t min, int64_t max, int64_t *value)
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

static void read_float(struct build *b, const char *key, float *value)
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
static void want_str(struct build *b, const char *name, const char *want, bool optional)
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

static void read_keys(struct build *b)
{
    enum { MANY = 1 << 20 };
    struct sizes *n = &b->n;
    int64_t experts = 0;
    *n = (struct sizes){.layers = -1,
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
static int find(struct build *b, const char *name, attend_gguf_tensor *t)
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
static attend_tensor weight(struct build *b, const char *name, attend_shape want)
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

static attend_tensor layer_weight(struct build *b, int64_t layer, const char *what,
                                  attend_shape shape)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%" PRId64 ".%s.weight", layer, what);
    return weight(b, name, shape);
}

static attend_tensor linear(struct build *b, attend_tensor x, int64_t layer, const char *what,
                            int64_t in, int64_t out)
{
    return attend_graph_matmul_nt(b->g, x, layer_weight(b, layer, what, ATTEND_SHAPE(out, in)));
}

/* A tensor that the graph has no place for changes what the model computes (a bias, experts):
 * better refused than left out.  It ends at the first such, so it looks at no more than ntaken + 1
 * names. */
static void refuse_others(struct build *b)
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
static attend_tensor split_heads(struct build *b, attend_tensor x, int64_t heads, int64_t d)
{
    const int swap[] = {0, 2, 1, 3};
    int64_t tokens = attend_tensor_shape(x).dim[0];
    return attend_graph_permute(
        b->g, attend_graph_reshape(b->g, x, ATTEND_SHAPE(1, tokens, heads, d)), swap);
}

static attend_tensor join_heads(struct build *b, attend_tensor x)
{
    const int swap[] = {0, 2, 1, 3};
    attend_shape s = attend_tensor_shape(x);
    return attend_graph_reshape(b->g, attend_graph_permute(b->g, x, swap),
                                ATTEND_SHAPE(s.dim[2], s.dim[1] * s.dim[3]));
}

/* The pool of a layer, with the new rows at their positions. */
static attend_tensor remember(struct build *b, char which, int64_t layer, attend_tensor rows)
{
    char name[32];
    int64_t d = attend_tensor_shape(rows).dim[3];
    snprintf(name, sizeof name, "%c%" PRId64, which, layer);
    attend_tensor pool = attend_graph_state(b->g, name, b->opts.kv,
                                            ATTEND_SHAPE(1, b->n.groups, b->opts.context, d));
    return attend_graph_append(b->g, pool, rows, b->position);
}

/* (1, groups, rows, d) with each group repeated for the heads that read it */
static attend_tensor repeat_heads(struct build *b, attend_tensor x)
{
    attend_shape s = attend_tensor_shape(x);
    int64_t g = s.dim[1], rows = s.dim[2], d = s.dim[3], times = b->n.heads / g;
    x = attend_graph_reshape(b->g, x, ATTEND_SHAPE(1, g, 1, rows, d));
    x = attend_graph_expand(b->g, x, ATTEND_SHAPE(1, g, times, rows, d));
    return attend_graph_reshape(b->g, x, ATTEND_SHAPE(1, g * times, rows, d));
}

static void map_name(char name[24], int64_t layer)
{
    snprintf(name, 24, "map%" PRId64, layer);
}

/* Attention whose weights are a result of the graph, by a second pass. */
static attend_tensor mapped_attention(struct build *b, int64_t layer, attend_tensor q,
                                      attend_tensor k, attend_tensor v,
                                      const attend_attention_opts *opts)
{
    char name[24];
    attend_tensor lse, o = attend_graph_attention(b->g, q, k, v, opts, &lse);
    map_name(name, layer);
    attend_graph_output(b->g, name,
                        attend_graph_attention_weights(b->g, q, k, lse, opts, b->kept, NULL));
    return o;
}

/* Row i sees the keys up to its own: the rows of the pool that are used end with the last row's. */
static attend_tensor attention(struct build *b, int64_t layer, attend_tensor q, attend_tensor k,
                               attend_tensor v)
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
static attend_tensor rotate(struct build *b, attend_tensor x, attend_tensor factors)
{
    attend_rope_opts opts;
    attend_rope_opts_init(&opts);
    opts.pairing = ATTEND_ROPE_INTERLEAVED;
    opts.dims = b->n.rotated;
    opts.base = b->n.rope_base;
    opts.factors = factors;
    return attend_graph_rope(b->g, x, b->position, &opts);
}

static attend_tensor layer(struct build *b, int64_t i, attend_tensor x, attend_tensor factors)
{
    const struct sizes *n = &b->n;
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
static attend_tensor embedding(struct build *b)
{
    attend_gguf_tensor t = {.shape.rank = 0};
    int found = find(b, "token_embd.weight", &t);
    b->n.vocabulary = found > 0 ? t.shape.dim[0] : 0;
    if (found > 0 && (b->n.vocabulary < 1 || b->n.vocabulary > INT32_MAX))
        REFUSE(b, ATTEND_EFORMAT, "tensor 'token_embd.weight' has %" PRId64 " rows",
               b->n.vocabulary);
    return weight(b, "token_embd.weight", ATTEND_SHAPE(b->n.vocabulary, b->n.width));
}

static void build_graph(struct build *b)
{
    const struct sizes *n = &b->n;
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
    attend_graph_output(g, "logits", attend_graph_matmul_nt(g, x, out));
    refuse_others(b);
}

static int compile(struct build *b, attend_plan **plan)
{
    attend_compile_opts opts;
    attend_compile_opts_init(&opts);
    opts.device = b->opts.device;
    opts.precision = b->opts.precision;
    if (b->status == 0 && attend_compile(b->g, &opts, plan) < 0)
        REFUSE(b, attend_graph_status(b->g), "%s", attend_graph_error(b->g));
    return b->status;
}

/* ---- the object ---- */

/* All layers' pools in one piece: keys of a layer, then its values. */
static int64_t pool_bytes(const attend_llama *m, int64_t d)
{
    return m->n.groups * m->context * attend_type_row_bytes(m->kv, d);
}

static int64_t cache_bytes(const attend_llama *m)
{
    return m->n.layers * (pool_bytes(m, m->n.dk) + pool_bytes(m, m->n.dv));
}

/* Bindings of all pools; how many. */
static int pools(const attend_llama *m, attend_binding *bind, char (*name)[24])
{
    char *at = m->cache;
    int n = 0;
    for (int64_t i = 0; i < m->n.layers; i++)
        for (int v = 0; v < 2; v++, n++) {
            int64_t bytes = pool_bytes(m, v ? m->n.dv : m->n.dk);
            snprintf(name[n], sizeof name[n], "%c%" PRId64, v ? 'v' : 'k', i);
            bind[n] = (attend_binding){.name = name[n], .data = at, .bytes = bytes};
            at += bytes;
        }
    return n;
}

/* Bindings of maps, where they are wanted; how many. */
static int bind_maps(const attend_llama *m, attend_binding *bind, char (*name)[24])
{
    const int64_t count = m->maps ? m->n.layers : 0;
    for (int64_t i = 0; i < count; i++) {
        map_name(name[i], i);
        bind[i] = (attend_binding){.name = name[i],
                                   .data = m->maps + i * m->n.heads * m->cells,
                                   .bytes = m->n.heads * m->cells * (int64_t)sizeof *m->maps};
    }
    return (int)count;
}

/* What stays bound from run to run, and a first run's dimensions. */
static int bind_all(attend_llama *m)
{
    const size_t most = (size_t)m->n.layers * 3 + 7;
    const int64_t rows = m->batch * (int64_t)sizeof(int32_t);
    attend_binding *bind = malloc(most * sizeof *bind);
    char(*name)[24] = malloc(most * sizeof *name);
    int status = ATTEND_ENOMEM;
    if (bind && name) {
        const attend_binding others[] = {
            {.name = "token",    .data = m->token, .bytes = rows},
            {.name = "position",     .data = m->position, .bytes = rows},
            {.name = "row", .data = m->row, .bytes = rows},
            {.name = "used",     .data = &m->used, .bytes = sizeof m->used},
            {.name = "tokens",      .value = 1},
            {.name = "outputs",     .value = 0},
            {.name = "logits"    },
        };
        int n = pools(m, bind, name);
        n += bind_maps(m, bind + n, name + n);
        m->used = 1;
        memcpy(bind + n, others, sizeof others);
        status = attend_bind(m->exec, bind, n + (int)(sizeof others / sizeof *others));
    }
    free(bind);
    free(name);
    return status;
}

/* Memory for the cache and inputs, and an exec with all of it bound. */
static int prepare(attend_llama *m, char *err, size_t errlen)
{
    const size_t rows = (size_t)m->batch;
    int64_t bytes = cache_bytes(m);
    m->cache = calloc(1, (size_t)bytes);
    m->token = calloc(rows, sizeof *m->token);
    m->position = calloc(rows, sizeof *m->position);
    m->row = calloc(rows, sizeof *m->row);
    if (!m->cache || !m->token || !m->position || !m->row)
        return at_say(err, errlen, ATTEND_ENOMEM,
                      "no memory for %" PRId64 " bytes of keys and values (%" PRId64 " positions)",
                      bytes, m->context);
    if (attend_exec_new(m->plan, &m->exec) < 0)
        return at_say(err, errlen, ATTEND_ENOMEM, "no memory for a run of the model");
    int status = bind_all(m);
    return status < 0 ? at_say(err, errlen, status, "%s",
                               *attend_exec_error(m->exec) ? attend_exec_error(m->exec)
                                                           : "no memory to bind the model")
                      : 0;
}

void attend_llama_opts_init(attend_llama_opts *opts)
{
    *opts = (attend_llama_opts){.size = sizeof *opts, .batch = 512, .kv = ATTEND_F32};
}

/* Settles what the options left open.  A file may ask for a cache of 2^71 bytes; sizes that pass
 * here can be multiplied below. */
static void check_opts(struct build *b)
{
    attend_llama_opts *o = &b->opts;
    const struct sizes *n = &b->n;
    if (b->status < 0)
        return;
    if (o->kv != ATTEND_F32 && o->kv != ATTEND_F16 && o->kv != ATTEND_BF16 &&
        o->kv != ATTEND_Q8_0 && o->kv != ATTEND_Q4_0 && o->kv != ATTEND_F8)
        REFUSE(b, ATTEND_EUNSUPPORTED,
               "keys and values in %s: want f32, f16, bf16, q8_0, q4_0 or f8",
               attend_type_name(o->kv));
    if (o->context == 0)
        o->context = n->context;
    if (o->context < 1 || o->context > n->context)
        REFUSE(b, ATTEND_ELIMIT,
               "a context of %" PRId64 " tokens, but the model was made for 1 to %" PRId64,
               o->context, n->context);
    if (o->batch < 1)
        REFUSE(b, ATTEND_EINVAL, "a batch of %" PRId64 " tokens, want at least 1", o->batch);
    if (o->batch > o->context)
        o->batch = o->context;
    double bytes =
        (double)n->layers * (double)n->groups * (double)o->context *
        (double)(attend_type_row_bytes(o->kv, n->dk) + attend_type_row_bytes(o->kv, n->dv));
    if (bytes > 0x1p62)
        REFUSE(b, ATTEND_ELIMIT, "keys and values of %" PRId64 " tokens would take %g bytes",
               o->context, bytes);
}

/* Room for the maps of n tokens, (layers, heads, rows, columns). */
static int make_maps(struct build *b, attend_llama *m, int64_t n, attend_array *out)
{
    const bool pooled = b->kept->mode == ATTEND_WEIGHTS_POOL;
    const int64_t rows = pooled ? b->kept->rows : n, cols = pooled ? b->kept->cols : n;
    const double bytes =
        4.0 * (double)m->n.layers * (double)m->n.heads * (double)rows * (double)cols;
    if (rows < 1 || cols < 1 || bytes > 0x1p60)
        return REFUSE(b, ATTEND_ELIMIT, "maps of %" PRId64 " x %" PRId64 " cells", rows, cols);
    m->cells = rows * cols;
    *out = (attend_array){.type = ATTEND_F32,
                          .shape = ATTEND_SHAPE(m->n.layers, m->n.heads, rows, cols),
                          .bytes = m->n.layers * m->n.heads * m->cells * (int64_t)sizeof(float)};
    out->data = m->maps = malloc((size_t)out->bytes);
    if (!m->maps)
        return REFUSE(b, ATTEND_ENOMEM, "no memory for maps of %" PRId64 " bytes", out->bytes);
    return 0;
}

/* maps, where not NULL, is made for one feeding of all that the context holds. */
static int new_llama(attend_ctx *ctx, const attend_gguf *file, const attend_llama_opts *opts,
                     const attend_weights_opts *kept, attend_array *maps, attend_llama **out,
                     char *err, size_t errlen)
{
    struct build b = {.file = file, .kept = kept, .err = err, .errlen = errlen};
    *out = NULL;
    attend_llama_opts_init(&b.opts);
    if (opts)
        memcpy(&b.opts, opts, opts->size < sizeof b.opts ? opts->size : sizeof b.opts);
    read_keys(&b);
    check_opts(&b);
    if (b.status < 0)
        return b.status;
    attend_llama *m = calloc(1, sizeof *m);
    b.g = attend_graph_new(ctx);
    b.taken = calloc((size_t)b.n.layers * 9 + 4, sizeof *b.taken);
    if (!m || !b.g || !b.taken) {
        REFUSE(&b, ATTEND_ENOMEM, "no memory for a model of %" PRId64 " layers", b.n.layers);
    } else {
        build_graph(&b);
        m->n = b.n;
        m->kv = b.opts.kv;
        m->context = b.opts.context;
        m->batch = b.opts.batch;
        if (b.status == 0 && kept)
            make_maps(&b, m, m->context, maps);
        if (compile(&b, &m->plan) == 0)
            b.status = prepare(m, err, errlen);
    }
    attend_graph_free(b.g);
    free(b.taken);
    if (b.status < 0)
        attend_llama_free(m);
    else
        *out = m;
    return b.status;
}

int attend_llama_new(attend_ctx *ctx, const attend_gguf *file, const attend_llama_opts *opts,
                     attend_llama **out, char *err, size_t errlen)
{
    return new_llama(ctx, file, opts, NULL, NULL, out, err, errlen);
}

int attend_llama_maps(attend_ctx *ctx, const attend_gguf *file, const attend_llama_opts *opts,
                      const int32_t *tokens, int64_t n, const attend_weights_opts *kept,
                      attend_array *maps, char *err, size_t errlen)
{
    attend_llama *m;
    attend_llama_opts whole;
    attend_llama_opts_init(&whole);
    if (opts)
        memcpy(&whole, opts, opts->size < sizeof whole ? opts->size : sizeof whole);
    whole.size = sizeof whole;
    whole.context = whole.batch = n;
    *maps = (attend_array){.data = NULL};
    if (n < 1 || (kept->mode != ATTEND_WEIGHTS_DENSE && kept->mode != ATTEND_WEIGHTS_POOL))
        return at_say(err, errlen, ATTEND_EINVAL,
                      "maps are dense or pooled, of one token at least");
    int status = new_llama(ctx, file, &whole, kept, maps, &m, err, errlen);
    if (status == 0)
        status = attend_llama_feed(m, tokens, n, n, NULL, err, errlen);
    attend_llama_free(m);
    if (status < 0) {
        free(maps->data);
        *maps = (attend_array){.data = NULL};
    }
    return status;
}

void attend_llama_free(attend_llama *m)
{
    if (!m)
        return;
    attend_exec_free(m->exec);
    attend_plan_free(m->plan);
    free(m->cache);
    free(m->token);
    free(m->position);
    free(m->row);
    free(m);
}

int64_t attend_llama_vocabulary(const attend_llama *m)
{
    return m->n.vocabulary;
}

int64_t attend_llama_context(const attend_llama *m)
{
    return m->context;
}

int64_t attend_llama_fed(const attend_llama *m)
{
    return m->fed;
}

const attend_plan *attend_llama_plan(const attend_llama *m)
{
    return m->plan;
}

void attend_llama_cancel(attend_llama *m, const volatile int *flag)
{
    attend_exec_cancel(m->exec, flag);
}

void attend_llama_reset(attend_llama *m)
{
    m->fed = 0;
}

/* ---- feeding ---- */

/* At most a batch: logits after its last `outputs` tokens. */
static int feed_batch(attend_llama *m, const int32_t *tokens, int64_t n, int64_t outputs,
                      float *logits)
{
    for (int64_t i = 0; i < n; i++) {
        m->token[i] = tokens[i];
        m->position[i] = (int32_t)(m->fed + i);
    }
    for (int64_t i = 0; i < outputs; i++)
        m->row[i] = (int32_t)(n - outputs + i);
    m->used = (int32_t)(m->fed + n);
    const attend_binding bind[] = {
        {.name = "tokens",                                             .value = n},
        {                .name = "outputs",                                            .value = outputs          },
        { .name = "logits",
         .data = outputs ? logits : NULL,
         .bytes = outputs * m->n.vocabulary * (int64_t)sizeof *logits},
    };
    int status = attend_bind(m->exec, bind, 3);
    if (status == 0)
        status = attend_run(m->exec);
    if (status == 0)
        m->fed += n;
    return status;
}

int attend_llama_feed(attend_llama *m, const int32_t *tokens, int64_t n, int64_t from,
                      float *logits, char *err, size_t errlen)
{
    const int64_t before = m->fed;
    if (n < 0 || from < 0 || from > n)
        return at_say(err, errlen, ATTEND_EINVAL,
                      "logits from token %" PRId64 " of %" PRId64 " are asked for", from, n);
    if (n > m->context - m->fed)
        return at_say(err, errlen, ATTEND_ELIMIT,
                      "%" PRId64 " tokens after %" PRId64 " do not fit into a context of %" PRId64,
                      n, m->fed, m->context);
    for (int64_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= m->n.vocabulary)
            return at_say(err, errlen, ATTEND_EINVAL,
                          "token %" PRId64 " is %" PRId32 ", outside of the vocabulary of %" PRId64,
                          i, tokens[i], m->n.vocabulary);
    for (int64_t at = 0, step; at < n; at += step) {
        step = n - at < m->batch ? n - at : m->batch;
        int64_t outputs = at + step - (at > from ? at : from);
        int status = feed_batch(m, tokens + at, step, outputs > 0 ? outputs : 0, logits);
        if (status < 0) {
            m->fed = before;
            return at_say(err, errlen, status, "%s", attend_exec_error(m->exec));
        }
        if (outputs > 0 && logits)
            logits += outputs * m->n.vocabulary;
    }
    return 0;
}
