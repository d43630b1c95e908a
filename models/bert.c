/* SPDX-License-Identifier: MIT */
/* BERT encoders (Devlin et al. 2019) as a graph on the public API.
 *
 * Sequences go through it side by side, packed: no row is padding.  `tokens`, how many there are in
 * all, is its row dimension; attention reads from `starts` where sequences begin and end. */
#include "bert.h"
#include "say.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What building goes through; like a graph, it keeps the first error. */
struct build {
    const attend_bert *m;
    attend_graph *g;
    const char *prefix;              /* of the file's names: "" or "bert." */
    attend_tensor starts;            /* packed; none: one sequence */
    const attend_weights_opts *kept; /* NULL: no maps */
    int status;
    char *err;
    size_t errlen;
};

#define REFUSE(b, code, ...)                                                                       \
    ((b)->status < 0 ? (b)->status                                                                 \
                     : ((b)->status = at_say((b)->err, (b)->errlen, code, __VA_ARGS__)))

/* ---- weights ---- */

static bool same_shape(const attend_shape *a, const attend_shape *b)
{
    bool same = a->rank == b->rank;
    for (int d = 0; same && d < a->rank; d++)
        same = a->dim[d] == b->dim[d];
    return same;
}

/* A tensor of the file as a constant of the graph. */
static attend_tensor weight(struct build *b, const char *name, attend_shape want)
{
    char full[160];
    attend_safetensors_tensor t;
    if (b->status < 0)
        return attend_none();
    snprintf(full, sizeof full, "%s%s", b->prefix, name);
    int found = attend_safetensors_get(b->m->file, full, &t, b->err, b->errlen);
    if (found < 0)
        b->status = found;
    else if (!found)
        REFUSE(b, ATTEND_EFORMAT, "tensor '%s' is missing", full);
    else if (!same_shape(&t.shape, &want))
        REFUSE(b, ATTEND_EFORMAT,
               "tensor '%s' has %d axes, the first of %" PRId64 "; want %d, of %" PRId64, full,
               t.shape.rank, t.shape.rank ? t.shape.dim[0] : 0, want.rank, want.dim[0]);
    else if (t.type != ATTEND_F32 && t.type != ATTEND_F16 && t.type != ATTEND_BF16)
        REFUSE(b, ATTEND_EUNSUPPORTED, "tensor '%s' is %s; want f32, f16 or bf16", full,
               attend_type_name(t.type));
    else
        b->status = attend_gguf_tensor_check(&t, b->err, b->errlen);
    return b->status < 0 ? attend_none()
                         : attend_graph_const(b->g, full, t.type, t.shape, t.data, t.bytes);
}

/* NAME.WHAT of layer i, or of the embeddings where i is -1. */
static attend_tensor part(struct build *b, int64_t i, const char *name, const char *what,
                          attend_shape shape)
{
    char full[128];
    if (i < 0)
        snprintf(full, sizeof full, "embeddings.%s.%s", name, what);
    else
        snprintf(full, sizeof full, "encoder.layer.%" PRId64 ".%s.%s", i, name, what);
    return weight(b, full, shape);
}

static attend_tensor linear(struct build *b, attend_tensor x, int64_t i, const char *name,
                            int64_t in, int64_t out)
{
    attend_tensor w = part(b, i, name, "weight", ATTEND_SHAPE(out, in));
    return attend_graph_add(b->g, attend_graph_matmul_nt(b->g, x, w),
                            part(b, i, name, "bias", ATTEND_SHAPE(out)));
}

static attend_tensor norm(struct build *b, attend_tensor x, int64_t i, const char *name)
{
    const int64_t width = b->m->n.width;
    return attend_graph_layer_norm(b->g, x, part(b, i, name, "weight", ATTEND_SHAPE(width)),
                                   part(b, i, name, "bias", ATTEND_SHAPE(width)), b->m->n.eps);
}

/* ---- the graph ---- */

static bool is_packed(const struct build *b)
{
    return b->starts.graph != NULL;
}

/* (tokens, width) as (tokens, heads, d), which is how packed sequences go, or (1, heads, tokens, d)
 */
static attend_tensor split_heads(struct build *b, attend_tensor x)
{
    static const int swap[] = {0, 2, 1, 3};
    const int64_t heads = b->m->n.heads, d = b->m->n.width / heads;
    const int64_t tokens = attend_tensor_shape(x).dim[0];
    if (is_packed(b))
        return attend_graph_reshape(b->g, x, ATTEND_SHAPE(tokens, heads, d));
    return attend_graph_permute(
        b->g, attend_graph_reshape(b->g, x, ATTEND_SHAPE(1, tokens, heads, d)), swap);
}

static attend_tensor join_heads(struct build *b, attend_tensor x)
{
    static const int swap[] = {0, 2, 1, 3};
    attend_shape s = attend_tensor_shape(x);
    int64_t tokens = is_packed(b) ? s.dim[0] : s.dim[2];
    if (!is_packed(b))
        x = attend_graph_permute(b->g, x, swap);
    return attend_graph_reshape(b->g, x, ATTEND_SHAPE(tokens, b->m->n.width));
}

/* The result "mapI": the weights of a layer. */
static void add_map(struct build *b, int64_t i, attend_tensor q, attend_tensor k)
{
    char name[32];
    snprintf(name, sizeof name, "map%" PRId64, i);
    attend_graph_output(
        b->g, name, attend_graph_attention_weights(b->g, q, k, attend_none(), NULL, b->kept, NULL));
}

static attend_tensor attention(struct build *b, int64_t i, attend_tensor x)
{
    const int64_t width = b->m->n.width;
    attend_attention_opts opts;
    attend_tensor q, k, v, o;
    attend_attention_opts_init(&opts);
    opts.q_lens = opts.kv_lens = b->starts;
    q = split_heads(b, linear(b, x, i, "attention.self.query", width, width));
    k = split_heads(b, linear(b, x, i, "attention.self.key", width, width));
    v = split_heads(b, linear(b, x, i, "attention.self.value", width, width));
    o = attend_graph_attention(b->g, q, k, v, &opts, NULL);
    if (b->kept)
        add_map(b, i, q, k);
    return linear(b, join_heads(b, o), i, "attention.output.dense", width, width);
}

static attend_tensor activate(struct build *b, attend_tensor x)
{
    switch (b->m->n.activation) {
    case AT_BERT_GELU_TANH:
        return attend_graph_gelu_tanh(b->g, x);
    case AT_BERT_RELU:
        return attend_graph_relu(b->g, x);
    default:
        return attend_graph_gelu(b->g, x);
    }
}

static attend_tensor layer(struct build *b, int64_t i, attend_tensor x)
{
    const struct at_bert_sizes *n = &b->m->n;
    attend_graph *g = b->g;
    x = norm(b, attend_graph_add(g, x, attention(b, i, x)), i, "attention.output.LayerNorm");
    attend_tensor h = activate(b, linear(b, x, i, "intermediate.dense", n->width, n->hidden));
    h = linear(b, h, i, "output.dense", n->hidden, n->width);
    return norm(b, attend_graph_add(g, x, h), i, "output.LayerNorm");
}

/* Word, place and type: all tokens are of type 0. */
static attend_tensor embed(struct build *b, attend_tensor token, attend_tensor position)
{
    const struct at_bert_sizes *n = &b->m->n;
    attend_graph *g = b->g;
    attend_tensor words =
        part(b, -1, "word_embeddings", "weight", ATTEND_SHAPE(n->vocabulary, n->width));
    attend_tensor places =
        part(b, -1, "position_embeddings", "weight", ATTEND_SHAPE(n->positions, n->width));
    attend_tensor types =
        part(b, -1, "token_type_embeddings", "weight", ATTEND_SHAPE(n->types, n->width));
    attend_tensor x = attend_graph_gather(g, words, token);
    x = attend_graph_add(g, x, attend_graph_gather(g, places, position));
    x = attend_graph_add(g, x, attend_graph_slice(g, types, 0, 0, 1));
    return norm(b, x, -1, "LayerNorm");
}

static void build_graph(struct build *b, int64_t tokens)
{
    char label[32];
    attend_safetensors_tensor t;
    attend_graph *g = b->g;
    bool plain =
        attend_safetensors_get(b->m->file, "embeddings.word_embeddings.weight", &t, NULL, 0) != 0;
    b->prefix = plain ? "" : "bert.";
    attend_tensor token = attend_graph_input(g, "token", ATTEND_I32, ATTEND_SHAPE(tokens));
    attend_tensor position = attend_graph_input(g, "position", ATTEND_I32, ATTEND_SHAPE(tokens));
    attend_graph_label(g, "embed");
    attend_tensor x = embed(b, token, position);
    for (int64_t i = 0; i < b->m->n.layers && b->status >= 0; i++) {
        snprintf(label, sizeof label, "l%" PRId64, i);
        attend_graph_label(g, label);
        x = layer(b, i, x);
    }
    attend_graph_output(g, "hidden", x);
}

/* For packed sequences (ends > 0), or for one of `tokens` with its maps. */
static int make_plan(struct build *b, int64_t tokens, int64_t ends, attend_plan **plan)
{
    attend_compile_opts opts;
    attend_compile_opts_init(&opts);
    opts.device = b->m->device;
    b->g = attend_graph_new(b->m->ctx);
    if (!b->g)
        return REFUSE(b, ATTEND_ENOMEM, "no memory for a graph");
    b->starts = attend_none();
    if (ends > 0) {
        tokens = attend_graph_dim(b->g, "tokens", 1, tokens);
        ends = attend_graph_dim(b->g, "ends", 2, ends);
        b->starts = attend_graph_input(b->g, "starts", ATTEND_I32, ATTEND_SHAPE(ends));
    }
    build_graph(b, tokens);
    if (b->status == 0 && attend_compile(b->g, &opts, plan) < 0)
        REFUSE(b, attend_graph_status(b->g), "%s", attend_graph_error(b->g));
    attend_graph_free(b->g);
    return b->status;
}

/* ---- the object ---- */

void attend_bert_opts_init(attend_bert_opts *opts)
{
    *opts = (attend_bert_opts){.size = sizeof *opts, .batch = 1024};
}

static int read_opts(attend_bert *m, const attend_bert_opts *opts, char *err, size_t errlen)
{
    attend_bert_opts_init(&m->opts);
    if (opts)
        memcpy(&m->opts, opts, opts->size < sizeof m->opts ? opts->size : sizeof m->opts);
    if (m->opts.batch < 1 || m->opts.batch > 1 << 24)
        return at_say(err, errlen, ATTEND_EINVAL, "a batch of %" PRId64 " tokens, want 1 to 2^24",
                      m->opts.batch);
    if (m->opts.device) {
        m->device = malloc(strlen(m->opts.device) + 1);
        if (!m->device)
            return at_say(err, errlen, ATTEND_ENOMEM, "no memory for a name");
        strcpy(m->device, m->opts.device);
    }
    return 0;
}

/* An exec, the places that do not change, and room for what embeddings are made of. */
static int prepare(attend_bert *m, char *err, size_t errlen)
{
    const size_t rows = (size_t)m->opts.batch;
    m->position = malloc(rows * sizeof *m->position);
    m->hidden = malloc(rows * (size_t)m->n.width * sizeof *m->hidden);
    if (!m->position || !m->hidden || attend_exec_new(m->plan, &m->exec) < 0)
        return at_say(err, errlen, ATTEND_ENOMEM, "no memory for a batch of %zu tokens", rows);
    return 0;
}

static int open_all(attend_bert *m, const char *folder, const attend_bert_opts *opts, char *err,
                    size_t errlen)
{
    char path[1024], why[400];
    int lower = 1, status = read_opts(m, opts, err, errlen);
    if (status == 0)
        status = at_bert_read_folder(m, folder, &lower, err, errlen);
    if (status < 0)
        return status;
    if (m->opts.batch < m->limit)
        m->opts.batch = m->limit;
    if (!at_bert_path(path, folder, "model.safetensors"))
        return at_say(err, errlen, ATTEND_EIO, "%s: the path is too long", folder);
    status = attend_safetensors_open(path, &m->file, err, errlen);
    if (status < 0)
        return status;
    struct build b = {.m = m, .err = why, .errlen = sizeof why};
    if (make_plan(&b, m->opts.batch, m->opts.batch + 1, &m->plan) < 0)
        return at_say(err, errlen, b.status, "%s: %s", path, why);
    return prepare(m, err, errlen);
}

int attend_bert_open(attend_ctx *ctx, const char *folder, const attend_bert_opts *opts,
                     attend_bert **out, char *err, size_t errlen)
{
    *out = NULL;
    attend_bert *m = calloc(1, sizeof *m);
    if (!m)
        return at_say(err, errlen, ATTEND_ENOMEM, "no memory for a model");
    m->ctx = ctx;
    int status = open_all(m, folder, opts, err, errlen);
    if (status < 0)
        attend_bert_free(m);
    else
        *out = m;
    return status;
}

void attend_bert_free(attend_bert *m)
{
    if (!m)
        return;
    attend_exec_free(m->exec);
    attend_plan_free(m->plan);
    attend_safetensors_free(m->file);
    attend_wordpiece_free(m->wordpiece);
    free(m->device);
    free(m->position);
    free(m->hidden);
    free(m);
}

int64_t attend_bert_width(const attend_bert *m)
{
    return m->n.width;
}

int64_t attend_bert_limit(const attend_bert *m)
{
    return m->limit;
}

int64_t attend_bert_maps_count(const attend_bert *m)
{
    return m->n.layers * m->n.heads;
}

const attend_wordpiece *attend_bert_wordpiece(const attend_bert *m)
{
    return m->wordpiece;
}

const attend_plan *attend_bert_plan(const attend_bert *m)
{
    return m->plan;
}

/* ---- running ---- */

/* Checks sequences, and writes the place of each token in its own. */
static int place_tokens(attend_bert *m, const int32_t *starts, int64_t n, char *err, size_t errlen)
{
    if (n < 1 || starts[0] != 0)
        return at_say(err, errlen, ATTEND_EINVAL, "%" PRId64 " sequences, the first at %" PRId32, n,
                      n < 1 ? 0 : starts[0]);
    for (int64_t i = 0; i < n; i++) {
        int64_t length = (int64_t)starts[i + 1] - starts[i];
        if (length < 1 || length > m->limit)
            return at_say(err, errlen, ATTEND_ELIMIT,
                          "sequence %" PRId64 " has %" PRId64 " tokens; 1 to %" PRId64
                          " are allowed",
                          i, length, m->limit);
        if (starts[i + 1] > m->opts.batch)
            return at_say(err, errlen, ATTEND_ELIMIT, "%" PRId32 " tokens in a batch of %" PRId64,
                          starts[i + 1], m->opts.batch);
        for (int32_t t = starts[i]; t < starts[i + 1]; t++)
            m->position[t] = t - starts[i];
    }
    return 0;
}

static int run_exec(attend_exec *exec, const attend_binding *bind, int n, char *err, size_t errlen)
{
    int status = attend_bind(exec, bind, n);
    if (status == 0)
        status = attend_run(exec);
    return status < 0 ? at_say(err, errlen, status, "%s", attend_exec_error(exec)) : 0;
}

/* A binding is read or written as its name says; the library does not write inputs. */
static void *readable(const void *p)
{
    return (void *)(uintptr_t)p;
}

int attend_bert_run(attend_bert *m, const int32_t *tokens, const int32_t *starts, int64_t n,
                    float *hidden, char *err, size_t errlen)
{
    int status = place_tokens(m, starts, n, err, errlen);
    if (status < 0)
        return status;
    const int64_t count = starts[n], size = (int64_t)sizeof *tokens;
    const attend_binding bind[] = {
        {.name = "tokens",                                       .value = count},
        {                  .name = "ends",                                        .value = n + 1              },
        {    .name = "token",                                 .data = readable(tokens),                                               .bytes = count * size},
        { .name = "position",                                 .data = m->position,                                               .bytes = count * size},
        {   .name = "starts",                               .data = readable(starts),                                             .bytes = (n + 1) * size},
        {   .name = "hidden", .data = hidden,               .bytes = count * m->n.width * (int64_t)sizeof *hidden},
    };
    return run_exec(m->exec, bind, 6, err, errlen);
}

/* ---- maps ---- */

static int bind_maps(const attend_bert *m, attend_exec *exec, const int32_t *tokens, int64_t n,
                     const attend_array *maps, char *err, size_t errlen)
{
    const int64_t most = m->n.layers + 3, size = (int64_t)sizeof *tokens;
    const int64_t bytes = maps->bytes / m->n.layers;
    attend_binding *bind = calloc((size_t)most, sizeof *bind);
    char(*name)[32] = malloc((size_t)most * sizeof *name);
    int status = ATTEND_ENOMEM;
    if (bind && name) {
        bind[0] = (attend_binding){.name = "token", .data = readable(tokens), .bytes = n * size};
        bind[1] = (attend_binding){.name = "position", .data = m->position, .bytes = n * size};
        bind[2] = (attend_binding){.name = "hidden",
                                   .data = m->hidden,
                                   .bytes = n * m->n.width * (int64_t)sizeof *m->hidden};
        for (int64_t i = 0; i < m->n.layers; i++) {
            snprintf(name[i], sizeof name[i], "map%" PRId64, i);
            bind[3 + i] = (attend_binding){
                .name = name[i], .data = (char *)maps->data + i * bytes, .bytes = bytes};
        }
        status = run_exec(exec, bind, (int)most, err, errlen);
    } else {
        at_say(err, errlen, status, "no memory to bind %" PRId64 " layers", m->n.layers);
    }
    free(bind);
    free(name);
    return status;
}

/* Room for maps, (layers, heads, rows, columns). */
static int make_maps(const attend_bert *m, const attend_weights_opts *kept, int64_t n,
                     attend_array *out, char *err, size_t errlen)
{
    const bool pooled = kept->mode == ATTEND_WEIGHTS_POOL;
    const int64_t rows = pooled ? kept->rows : n, cols = pooled ? kept->cols : n;
    if (kept->mode != ATTEND_WEIGHTS_DENSE && !pooled)
        return at_say(err, errlen, ATTEND_EINVAL, "maps are dense or pooled");
    if (rows < 1 || cols < 1 || rows > n || cols > n)
        return at_say(err, errlen, ATTEND_EINVAL,
                      "maps of %" PRId64 " x %" PRId64 " cells, of %" PRId64 " tokens", rows, cols,
                      n);
    const int64_t cells = m->n.layers * m->n.heads * rows * cols; /* below 2^72 / 2^32 */
    *out = (attend_array){.type = ATTEND_F32,
                          .shape = ATTEND_SHAPE(m->n.layers, m->n.heads, rows, cols),
                          .data = malloc((size_t)cells * sizeof(float)),
                          .bytes = cells * (int64_t)sizeof(float)};
    return out->data ? 0
                     : at_say(err, errlen, ATTEND_ENOMEM, "no memory for maps of %" PRId64 " cells",
                              cells);
}

static int compute_maps(attend_bert *m, const int32_t *tokens, int64_t n,
                        const attend_weights_opts *kept, const attend_array *maps, char *err,
                        size_t errlen)
{
    attend_plan *plan = NULL;
    attend_exec *exec = NULL;
    struct build b = {.m = m, .kept = kept, .err = err, .errlen = errlen};
    int status = make_plan(&b, n, 0, &plan);
    if (status == 0 && attend_exec_new(plan, &exec) < 0)
        status = at_say(err, errlen, ATTEND_ENOMEM, "no memory for maps of %" PRId64 " tokens", n);
    if (status == 0)
        status = bind_maps(m, exec, tokens, n, maps, err, errlen);
    attend_exec_free(exec);
    attend_plan_free(plan);
    return status;
}

int attend_bert_maps(attend_bert *m, const int32_t *tokens, int64_t n,
                     const attend_weights_opts *kept, attend_array *maps, char *err, size_t errlen)
{
    const int32_t starts[] = {0, n > m->limit ? INT32_MAX : (int32_t)n};
    *maps = (attend_array){.data = NULL};
    int status = place_tokens(m, starts, 1, err, errlen);
    if (status == 0)
        status = make_maps(m, kept, n, maps, err, errlen);
    if (status == 0)
        status = compute_maps(m, tokens, n, kept, maps, err, errlen);
    if (status < 0) {
        free(maps->data);
        *maps = (attend_array){.data = NULL};
    }
    return status;
}
