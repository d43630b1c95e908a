/* SPDX-License-Identifier: MIT */
/* CLBlast, found at run time: products of f32 where it is faster than our kernel.  Which is, and
 * with which parameters, is measured once for a device and its driver, on one product, and kept
 * beside the programs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "env.h"
#include "opencl.h"
#include "progcache.h"

enum { M = 128, N = 512, K = 512, ROUNDS = 3 }; /* of what is measured */

/* What is kept: nanoseconds, and the parameters that theirs is of: one of tuned[], or OWN. */
enum { OWN = -1 };
struct times {
    int64_t ours, theirs, set;
};

static int load(struct at_cl_device *d, struct at_err *e)
{
    static const char *const names[] = {"libclblast.so.1", "libclblast.so", "clblast.dll",
                                        "libclblast.dylib"};
    const char *asked = at_env(AT_ENV_LIBCLBLAST);
    char err[256] = "";
    int status = asked ? at_os_lib_open(&d->clblast_lib, asked, err, sizeof err) : -1;
    for (int i = 0; !asked && status < 0 && i < AT_LEN(names); i++)
        status = at_os_lib_open(&d->clblast_lib, names[i], err, sizeof err);
    if (status < 0 && asked)
        return at_fail(e, ATTEND_EUNSUPPORTED, "%s names no library: %.150s",
                       at_env_name(AT_ENV_LIBCLBLAST), err);
    if (status < 0)
        return at_fail(e, ATTEND_EUNSUPPORTED, "no CLBlast was found (%s)", names[0]);
    if (!at_os_lib_symbol(d->clblast_lib, "CLBlastSgemm", &d->sgemm) ||
        !at_os_lib_symbol(d->clblast_lib, "CLBlastClearCache", &d->clblast_clear))
        return at_fail(e, ATTEND_EUNSUPPORTED, "the CLBlast library has no CLBlastSgemm");
    if (!at_os_lib_symbol(d->clblast_lib, "CLBlastOverrideParameters", &d->clblast_override))
        d->clblast_override = NULL; /* it goes by its own parameters */
    return 0;
}

/* ---- parameters ---- */

/* Of its kernel for large products: the library has some of its own for devices that it knows, of
 * whatever driver, and for others what suits none.  An item of the first has 8 x 8 results, in
 * vectors of a CPU's size, and no local memory; one of the others 4 x 4 or 8 x 8, of tiles that a
 * group of 16 x 16 shares. */
#define PARAMETERS 16
static const char *const parameters[PARAMETERS] = {
    "GEMMK", "KREG", "KWG", "KWI", "MDIMA", "MDIMC", "MWG", "NDIMB",
    "NDIMC", "NWG",  "SA",  "SB",  "STRM",  "STRN",  "VWM", "VWN"};
enum { KWG = 2, MDIMC = 5, MWG = 6, NDIMC = 8, NWG = 9, SA = 10 };

static const struct {
    bool cpu; /* tried on CPUs, or else on other devices */
    size_t value[PARAMETERS];
} tuned[AT_CLBLAST_SETS] = {
    {true,  {0, 1, 32, 2, 8, 8, 64, 8, 8, 64, 0, 0, 0, 0, 8, 4}      },
    {false, {0, 1, 16, 2, 16, 16, 64, 16, 16, 64, 1, 1, 0, 0, 4, 4}  },
    {false, {0, 1, 16, 2, 16, 16, 128, 16, 16, 128, 1, 1, 0, 0, 4, 4}},
};

/* The kernel for small products, which has parameters of its own, is left out, too. */
bool at_cl_library_tune(const struct at_cl_device *d, int set)
{
    enum { SINGLE = 32 };
    const char *names[PARAMETERS], *threshold = "XGEMM_MIN_INDIRECT_SIZE";
    const size_t *v = tuned[set].value, least = 1;
    int64_t local = (int64_t)(v[SA] * v[KWG] * (v[MWG] + v[NWG]) * sizeof(float));
    if (!d->clblast_override || local > d->gpu.local_bytes ||
        (int64_t)(v[MDIMC] * v[NDIMC]) > d->gpu.group_items)
        return false;
    memcpy(names, parameters, sizeof names);
    return d->clblast_override(d->id, "Xgemm", SINGLE, PARAMETERS, names, v) == 0 &&
           d->clblast_override(d->id, "GemmRoutine", SINGLE, 1, &threshold, &least) == 0;
}

/* ---- products ---- */

static cl_int multiply(struct at_cl_device *d, void *stream, const struct at_gpu_gemm *g)
{
    enum { ROW_MAJOR = 101, PLAIN = 111, TURNED = 112 };
    cl_command_queue queue = stream;
    return d->sgemm(ROW_MAJOR, PLAIN, g->b_rows ? TURNED : PLAIN, (size_t)g->m, (size_t)g->n,
                    (size_t)g->k, 1, g->a, (size_t)g->a_at, (size_t)g->a_row, g->b, (size_t)g->b_at,
                    (size_t)g->b_row, 0, g->c, (size_t)g->c_at, (size_t)g->c_row, &queue, NULL);
}

int at_cl_gemm(const struct at_device *device, void *stream, const struct at_gpu_gemm *g,
               struct at_err *e)
{
    struct at_cl_device *d = at_cl_device_of(device);
    int status = at_cl_usable(d, e);
    if (status < 0)
        return status;
    cl_int code = multiply(d, stream, g);
    return code ? at_cl_fail(d, code, "CLBlastSgemm", e) : 0;
}

/* ---- which is faster ---- */

static float number(int64_t i, uint32_t seed)
{
    return (float)(((uint32_t)i + seed) * 2654435761u >> 8) * 0x1p-23f - 1;
}

/* The product by our kernels: its time, and y. */
static int measure_ours(const struct at_device *device, attend_ctx *ctx, float *a, float *b,
                        float *y, int64_t *best, struct at_err *e)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_plan *plan = NULL;
    attend_exec *x = NULL;
    attend_compile_opts opts;
    attend_binding bind[] = {
        {.name = "a", .data = a, .bytes = M * K * sizeof *a},
        {.name = "b", .data = b, .bytes = N * K * sizeof *b},
        {.name = "y", .data = y, .bytes = M * N * sizeof *y},
    };
    attend_compile_opts_init(&opts);
    opts.device = device->name;
    attend_graph_output(
        g, "y",
        attend_graph_matmul_nt(g, attend_graph_input(g, "a", ATTEND_F32, ATTEND_SHAPE(M, K)),
                               attend_graph_input(g, "b", ATTEND_F32, ATTEND_SHAPE(N, K))));
    int status = attend_compile(g, &opts, &plan);
    if (status == 0)
        status = attend_exec_new(plan, &x);
    if (status == 0)
        status = attend_bind(x, bind, AT_LEN(bind));
    for (int i = 0; i <= ROUNDS && status == 0; i++) { /* the first to warm up */
        int64_t start = at_os_now();
        status = attend_run(x);
        if (i)
            *best = at_min(*best, at_os_now() - start);
    }
    if (status < 0)
        at_fail(e, status, "%.300s", x ? attend_exec_error(x) : attend_graph_error(g));
    attend_exec_free(x);
    attend_plan_free(plan);
    attend_graph_free(g);
    return status;
}

/* The same by the library, as it is set now.  What it refuses has no time. */
static int measure_theirs(const struct at_device *device, const float *a, const float *b, float *y,
                          int64_t *best, struct at_err *e)
{
    const struct at_memory *m = device->memory;
    struct at_gpu_gemm g = {
        .m = M, .n = N, .k = K, .a_row = K, .b_row = K, .c_row = N, .b_rows = true};
    void *stream = NULL;
    int status = m->stream_new(device, &stream, e);
    if (status == 0)
        status = m->alloc(device, M * K * (int64_t)sizeof *a, &g.a, e);
    if (status == 0)
        status = m->alloc(device, N * K * (int64_t)sizeof *b, &g.b, e);
    if (status == 0)
        status = m->alloc(device, M * N * (int64_t)sizeof *y, &g.c, e);
    if (status == 0)
        status = m->upload(device, stream, g.a, 0, a, M * K * (int64_t)sizeof *a, e);
    if (status == 0)
        status = m->upload(device, stream, g.b, 0, b, N * K * (int64_t)sizeof *b, e);
    for (int i = 0; i <= ROUNDS && status == 0; i++) { /* with its result, as ours */
        int64_t start = at_os_now();
        if (multiply(at_cl_device_of(device), stream, &g) != 0)
            break;
        status = m->download(device, stream, y, g.c, 0, M * N * (int64_t)sizeof *y, e);
        if (status == 0)
            status = m->finish(device, stream, e);
        if (i)
            *best = at_min(*best, at_os_now() - start);
    }
    m->free(device, g.a);
    m->free(device, g.b);
    m->free(device, g.c);
    m->stream_free(device, stream);
    return status;
}

static bool same(const float *x, const float *y)
{
    for (int64_t i = 0; i < M * N; i++)
        if (!(fabsf(x[i] - y[i]) <= 2e-4f * (1 + fabsf(x[i]))))
            return false;
    return true;
}

/* Theirs with each parameters that suit the device, first its own: what is set cannot be unset, so
 * where those were the fastest this process goes on with others. */
static int measure_sets(const struct at_device *device, const float *a, const float *b,
                        const float *ours, float *theirs, struct times *t, struct at_err *e)
{
    const struct at_cl_device *d = at_cl_device_of(device);
    int status = 0;
    for (int set = OWN; set < AT_CLBLAST_SETS && status == 0; set++) {
        int64_t time = INT64_MAX;
        if (set != OWN && (tuned[set].cpu != d->is_cpu || !at_cl_library_tune(d, set)))
            continue;
        status = measure_theirs(device, a, b, theirs, &time, e);
        if (status == 0 && time < t->theirs && same(ours, theirs)) {
            t->theirs = time;
            t->set = set;
        }
    }
    return status;
}

/* All times.  The library's is without end where its result is another. */
static int measure(const struct at_device *device, attend_ctx *ctx, struct times *t,
                   struct at_err *e)
{
    float *a = at_alloc(ctx, (M * K + N * K + 2 * M * N) * (int64_t)sizeof *a), *b = a + M * K,
          *ours = b + N * K, *theirs = ours + M * N;
    *t = (struct times){INT64_MAX, INT64_MAX, OWN};
    if (!a)
        return at_fail(e, ATTEND_ENOMEM, "no memory to measure products");
    for (int64_t i = 0; i < M * K; i++)
        a[i] = number(i, 1);
    for (int64_t i = 0; i < N * K; i++)
        b[i] = number(i, 2);
    int status = measure_ours(device, ctx, a, b, ours, &t->ours, e);
    if (status == 0)
        status = measure_sets(device, a, b, ours, theirs, t, e);
    at_free(ctx, a);
    return status;
}

static int times_of(const struct at_device *device, attend_ctx *ctx, struct times *t,
                    struct at_err *e)
{
    struct at_cl_device *d = at_cl_device_of(device);
    uint8_t key[32];
    int64_t bytes = 0;
    at_program_key((const char *const[]){"CLBlast 2", d->device_name, d->driver, d->version,
                                         d->platform_version},
                   5, key);
    struct times *known = at_progcache_read(ctx, key, &bytes);
    bool found = known && bytes == (int64_t)sizeof *known && known->set >= OWN &&
                 known->set < AT_CLBLAST_SETS;
    if (found)
        *t = *known;
    at_free(ctx, known);
    int status = found ? 0 : measure(device, ctx, t, e);
    if (status == 0 && !found)
        at_progcache_write(ctx, key, t, sizeof *t);
    return status;
}

static int refuse(struct at_cl_device *d, int state, struct at_err *e)
{
    if (state == AT_CLBLAST_MEASURED)
        return at_fail(e, ATTEND_EUNSUPPORTED, "CLBlast is being measured");
    return at_fail(e, ATTEND_EUNSUPPORTED, "%s", d->clblast_why);
}

/* Under AT_CLBLAST_MEASURED, which one thread has. */
static int choose(const struct at_device *device, struct at_err *e)
{
    struct at_cl_device *d = at_cl_device_of(device);
    struct times t;
    if (d->is_cpu && !at_env(AT_ENV_LIBCLBLAST))
        return at_fail(e, ATTEND_EUNSUPPORTED, "CLBlast is not for CPUs, unless %s names it",
                       at_env_name(AT_ENV_LIBCLBLAST));
    if (at_env(AT_ENV_LIBOPENCL))
        return at_fail(e, ATTEND_EUNSUPPORTED, "CLBlast loads the usual OpenCL library, not %s",
                       at_env_name(AT_ENV_LIBOPENCL));
    int status = load(d, e);
    if (status == 0)
        status = times_of(device, d->ctx, &t, e);
    if (status < 0)
        return status;
    if (t.theirs == INT64_MAX)
        return at_fail(e, ATTEND_EUNSUPPORTED,
                       "CLBlast gave no product, or another than our kernel");
    if (t.theirs >= t.ours)
        return at_fail(e, ATTEND_EUNSUPPORTED,
                       "a product of %d x %d x %d took CLBlast %.3f ms, our kernel %.3f", M, K, N,
                       (double)t.theirs * 1e-6, (double)t.ours * 1e-6);
    if (t.set != OWN && !at_cl_library_tune(d, (int)t.set))
        return at_fail(e, ATTEND_EUNSUPPORTED, "CLBlast does not take its parameters any more");
    at_log(d->ctx, "%s: CLBlast multiplies, with parameters %lld", device->name, (long long)t.set);
    return 0;
}

int at_cl_library(const struct at_device *device, struct at_err *e)
{
    struct at_cl_device *d = at_cl_device_of(device);
    int state = AT_CLBLAST_UNKNOWN;
    if (!atomic_compare_exchange_strong(&d->clblast, &state, AT_CLBLAST_MEASURED))
        return state == AT_CLBLAST_THEIRS ? 0 : refuse(d, state, e);
    int status = choose(device, e);
    if (status == ATTEND_EUNSUPPORTED)
        snprintf(d->clblast_why, sizeof d->clblast_why, "%.199s", e->text);
    atomic_store(&d->clblast, status == 0                     ? AT_CLBLAST_THEIRS
                              : status == ATTEND_EUNSUPPORTED ? AT_CLBLAST_OURS
                                                              : AT_CLBLAST_UNKNOWN);
    return status;
}

void at_cl_library_leave(struct at_cl_device *d)
{
    if (!d->clblast_lib)
        return;
    if (d->clblast_clear)
        d->clblast_clear(); /* its programs hold our context */
    at_os_lib_keep(d->clblast_lib);
    d->clblast_lib = NULL;
}
