/* SPDX-License-Identifier: MIT */
/* A Llama-family model that runs: its plan, its cache, and tokens fed to it. */
#include "llama.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct attend_llama {
    struct llama_sizes n;
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

static int compile(struct llama_build *b, attend_plan **plan)
{
    attend_compile_opts opts;
    attend_compile_opts_init(&opts);
    opts.device = b->opts.device;
    opts.precision = b->opts.precision;
    if (b->status == 0 && attend_compile(b->g, &opts, plan) < 0)
        REFUSE(b, attend_graph_status(b->g), "%s", attend_graph_error(b->g));
    return b->status;
}

/* ---- making ---- */

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
        at_llama_map_name(name[i], i);
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
        n += (int)(sizeof others / sizeof *others);
        status = attend_bind(m->exec, bind, m->maps ? n - 1 : n); /* maps come without logits */
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
static void check_opts(struct llama_build *b)
{
    attend_llama_opts *o = &b->opts;
    const struct llama_sizes *n = &b->n;
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
static int make_maps(struct llama_build *b, attend_llama *m, int64_t n, attend_array *out)
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
    struct llama_build b = {.file = file, .kept = kept, .err = err, .errlen = errlen};
    *out = NULL;
    attend_llama_opts_init(&b.opts);
    if (opts)
        memcpy(&b.opts, opts, opts->size < sizeof b.opts ? opts->size : sizeof b.opts);
    at_llama_read_keys(&b);
    check_opts(&b);
    if (b.status < 0)
        return b.status;
    attend_llama *m = calloc(1, sizeof *m);
    b.g = attend_graph_new(ctx);
    b.taken = calloc((size_t)b.n.layers * 9 + 4, sizeof *b.taken);
    if (!m || !b.g || !b.taken) {
        REFUSE(&b, ATTEND_ENOMEM, "no memory for a model of %" PRId64 " layers", b.n.layers);
    } else {
        at_llama_build_graph(&b);
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
    int status = attend_bind(m->exec, bind, m->maps ? 2 : 3);
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
