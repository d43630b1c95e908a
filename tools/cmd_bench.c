/* SPDX-License-Identifier: MIT */
/* attend bench: how fast attention is, as a share of what the machine can do at that moment. */
#include "bench.h"
#include "check.h"
#include "cmd.h"
#include "os.h"
#include "sdpa.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* clang-format off */
static const struct cmd_flag flags[] = {
    {"--list", NULL, "the standard shapes", NULL},
    {"--reps", "N", "measurements of each shape, in turn with the others (7)", NULL},
    {"--clock", "wall|cpu", "cpu: processor time, of one thread, where a machine is shared (wall)", NULL},
    {"--scaling", NULL, "also on one thread, in turn with all", NULL},
#include "sdpa_flags.h"
    {NULL, NULL, NULL, NULL},
};
/* clang-format on */

enum { MOST_LINES = 64, MOST_REPS = 99 };

/* One line of the table. */
struct line {
    char name[16],
        word[AT_PROBLEM_WORD]; /* of a standard shape; of a problem that is not in files */
    struct check_ready ready;
    struct bench_problem problem;
    struct bench_sample sample[MOST_REPS];
};

struct bench {
    const struct cmd_line *l;
    attend_ctx *ctx;
    struct bench_clock clock;
    attend_exec *files; /* NULL: problems have execs of their own */
    int64_t reps;
    struct line *line;
    int nline;
    double call, bind_call;
    struct peak {
        const char *isa;
        double one, all; /* threads; operations a second, 0 where the instruction set is absent */
    } peak[AT_SIMD_ISAS];
};

/* ---- which shapes ---- */

static void list_shapes(void)
{
    for (const struct bench_shape *s = bench_shapes; s->name; s++)
        printf("%-8s %-30s %s\n", s->name, s->what, s->word);
}

static int add_line(struct bench *b, const char *name, const struct at_problem *shape)
{
    if (b->nline == MOST_LINES)
        return cmd_wrong(b->l, "more than %d measurements at once", MOST_LINES);
    struct line *line = &b->line[b->nline++];
    snprintf(line->name, sizeof line->name, "%s", name);
    if (shape)
        at_problem_print(shape, line->word);
    return CMD_DONE;
}

static bool type_named(const char *name, size_t length, attend_type *type)
{
    static const attend_type types[] = {ATTEND_F32, ATTEND_F16, ATTEND_BF16, ATTEND_Q8_0,
                                        ATTEND_Q4_0};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const char *known = attend_type_name(types[i]);
        if (strlen(known) == length && strncmp(known, name, length) == 0) {
            *type = types[i];
            return true;
        }
    }
    return false;
}

/* One line for each of --kv-type. */
static int add_types(struct bench *b, const char *name, struct at_problem shape)
{
    const char *types = cmd_value(b->l, "--kv-type");
    int status = types ? CMD_DONE : add_line(b, name, &shape);
    while (types && status == CMD_DONE) {
        size_t length = strcspn(types, ",");
        if (!type_named(types, length, &shape.kv_type))
            return cmd_wrong(b->l, "--kv-type: \"%.*s\" is not one of f32, f16, bf16, q8_0, q4_0",
                             (int)length, types);
        status = add_line(b, name, &shape);
        types = types[length] ? types + length + 1 : NULL;
    }
    return status;
}

/* Flags of sdpa that need no file change the shape; the others ask for tensors. */
static int use_flags(const struct bench *b, struct at_problem *shape)
{
    static const char *const fit[] = {"--causal", "--align", "--window",  "--scale",   "--softcap",
                                      "--layout", "--dtype", "--kv-type", "--reps",    "--clock",
                                      "--device", "--quiet", "--scaling", "--threads", "--json"};
    static const char *const aligns[] = {"", "top-left", "bottom-right", NULL};
    static const char *const layouts[] = {"bhsd", "bshd", NULL};
    int64_t window[2] = {shape->left, shape->right};
    int align = (int)shape->align, layout = shape->bshd;
    for (int i = 0; i < b->l->ngiven; i++) {
        bool fits = false;
        for (size_t k = 0; k < sizeof fit / sizeof *fit; k++)
            fits = fits || strcmp(fit[k], b->l->given[i].name) == 0;
        if (!fits)
            return cmd_wrong(b->l, "%s is for tensors from files: --q, --k and --v",
                             b->l->given[i].name);
    }
    if (!cmd_ints(b->l, "--window", -1, INT32_MAX, window) ||
        !cmd_choice(b->l, "--align", aligns, &align) ||
        !cmd_choice(b->l, "--layout", layouts, &layout) ||
        !cmd_float(b->l, "--scale", -INFINITY, INFINITY, &shape->scale) ||
        !cmd_float(b->l, "--softcap", 0, INFINITY, &shape->softcap))
        return CMD_WRONG;
    shape->left = window[0];
    shape->right = window[1];
    shape->align = (attend_align)align;
    shape->bshd = layout;
    shape->causal = shape->causal || cmd_has(b->l, "--causal");
    return CMD_DONE;
}

static int add_word(struct bench *b, const char *name, const char *word)
{
    char err[320];
    struct at_problem shape;
    const char *dtype = cmd_value(b->l, "--dtype");
    if (at_problem_parse(word, &shape, err, sizeof err) < 0)
        return cmd_wrong(b->l, "%s", err);
    if (dtype) {
        if (!type_named(dtype, strlen(dtype), &shape.type) || shape.type > ATTEND_BF16)
            return cmd_wrong(b->l, "--dtype: \"%s\" is not one of f32, f16, bf16", dtype);
        shape.kv_type = shape.type;
    }
    int status = use_flags(b, &shape);
    return status == CMD_DONE ? add_types(b, name, shape) : status;
}

/* A word, or all shapes whose names begin so: E is both lengths of it. */
static int add_name(struct bench *b, const char *name)
{
    bool found = false;
    if (strchr(name, ':'))
        return add_word(b, "", name);
    for (const struct bench_shape *s = bench_shapes; s->name; s++)
        if (strncmp(s->name, name, strlen(name)) == 0) {
            int status = add_word(b, s->name, s->word);
            found = true;
            if (status != CMD_DONE)
                return status;
        }
    return found ? CMD_DONE
                 : cmd_wrong(b->l,
                             "there is no shape \"%s\"; --list has them, and a problem such "
                             "as attention:f32:b1h8g8q128k128d64 will do",
                             name);
}

/* ---- measuring ---- */

static int prepare_line(struct bench *b, struct line *line)
{
    char err[320];
    if (!b->files && check_prepare(&line->ready, b->ctx, cmd_value(b->l, "--device"), line->word,
                                   err, sizeof err) < 0)
        return cmd_fail(b->l, NULL, "%s", err);
    attend_exec *exec = b->files ? b->files : line->ready.exec;
    if (bench_begin(&line->problem, exec) < 0)
        return cmd_fail(b->l, NULL, "%s", attend_exec_error(exec));
    return CMD_DONE;
}

/* What a call costs beside its arithmetic: of one query and one key there is next to none. */
static int measure_call(struct bench *b)
{
    char err[320];
    struct check_ready r;
    if (check_prepare(&r, b->ctx, cmd_value(b->l, "--device"), "attention:f32:b1h1g1q1k1d1", err,
                      sizeof err) < 0)
        return cmd_fail(b->l, NULL, "%s", err);
    b->call = bench_call(r.exec, NULL, 0, b->clock.now);
    b->bind_call = bench_call(r.exec, r.bind, r.nbind, b->clock.now);
    check_done(&r);
    return CMD_DONE;
}

/* What each instruction set can do, which is not what each is used for. */
static void measure_peaks(struct bench *b)
{
    enum { TIMES = 7 };
    double one[TIMES], all[TIMES];
    struct at_simd_isa list[AT_SIMD_ISAS];
    at_simd_list(list);
    for (int i = 0; i < AT_SIMD_ISAS; i++) {
        b->peak[i].isa = list[i].name;
        for (int n = 0; list[i].table && n < TIMES; n++) {
            one[n] = bench_peak(b->ctx, list[i].table, true, b->clock.now);
            all[n] = bench_peak(b->ctx, list[i].table, false, b->clock.now);
        }
        b->peak[i].one = list[i].table ? bench_median(one, TIMES) : 0;
        b->peak[i].all = list[i].table ? bench_median(all, TIMES) : 0;
    }
}

/* Every shape in turn, so that a slow moment of the machine is shared by all. */
static int measure(struct bench *b)
{
    int status = measure_call(b);
    measure_peaks(b);
    for (int64_t r = 0; r < b->reps && status == CMD_DONE; r++)
        for (int i = 0; i < b->nline && status == CMD_DONE; i++) {
            struct line *line = &b->line[i];
            if (bench_measure(&line->problem, &b->clock, &line->sample[r]) < 0)
                status =
                    cmd_fail(b->l, NULL, "%s: %s", line->word, attend_exec_error(line->ready.exec));
        }
    return status;
}

/* ---- telling ---- */

/* Medians of a line, the shares those of each measurement. */
struct result {
    double us, least_us, gflops, peak, of_peak, gbs, read, of_read, speedup, peak_speedup;
};

static double over(double a, double b)
{
    return b > 0 ? a / b : 0;
}

static double per_call(const struct line *line, const struct bench_sample *s, int which)
{
    const struct bench_problem *p = &line->problem;
    switch (which) {
    case 0:
        return s->seconds * 1e6;
    case 1:
        return over(p->flops, s->seconds) * 1e-9;
    case 2:
        return s->peak * 1e-9;
    case 3:
        return over(over(p->flops, s->seconds), s->peak);
    case 4:
        return over(p->bytes, s->seconds) * 1e-9;
    case 5:
        return s->read * 1e-9;
    case 6:
        return over(over(p->bytes, s->seconds), s->read);
    case 7:
        return over(s->serial_seconds, s->seconds);
    default:
        return over(s->peak, s->serial_peak);
    }
}

static struct result result_of(const struct bench *b, const struct line *line)
{
    double median[9], x[MOST_REPS];
    struct result r = {0};
    for (int which = 0; which < 9; which++) {
        for (int64_t i = 0; i < b->reps; i++)
            x[i] = per_call(line, &line->sample[i], which);
        median[which] = bench_median(x, (int)b->reps);
        if (which == 0)
            r.least_us = x[0];
    }
    r.us = median[0], r.gflops = median[1], r.peak = median[2], r.of_peak = median[3];
    r.gbs = median[4], r.read = median[5], r.of_read = median[6];
    r.speedup = median[7], r.peak_speedup = median[8];
    return r;
}

static void print_peak(const struct bench *b, const struct peak *p)
{
    printf("%s: %.1f GFLOP/s of multiply-adds on one thread", p->isa, p->one * 1e-9);
    if (b->ctx->threads > 1)
        printf(", %.1f on %d", p->all * 1e-9, b->ctx->threads);
    printf("\n");
}

static void print_table(const struct bench *b)
{
    char cpu[128];
    at_os_cpu_name(cpu, sizeof cpu);
    printf("%s, %s, %d thread%s; medians of %d, %s time\n\n", cpu, b->line[0].problem.device,
           b->ctx->threads, b->ctx->threads == 1 ? "" : "s", (int)b->reps,
           b->clock.now == at_os_now ? "wall" : "processor");
    printf("%-8s %-5s %12s %9s %8s %8s %8s%s\n", "shape", "kv", "us", "GFLOP/s", "of peak", "GB/s",
           "of read", b->clock.serial ? "  speedup  of peak's" : "");
    for (int i = 0; i < b->nline; i++) {
        const struct line *line = &b->line[i];
        struct result r = result_of(b, line);
        printf("%-8s %-5s %12.1f %9.1f %7.1f%% %8.2f %7.1f%%", *line->name ? line->name : "-",
               attend_type_name(line->problem.a.k.type), r.us, r.gflops, 100 * r.of_peak, r.gbs,
               100 * r.of_read);
        if (b->clock.serial)
            printf(" %8.2f %10.3f", r.speedup, over(r.speedup, r.peak_speedup));
        printf("%s%s\n", *line->name ? "" : "  ", *line->name ? "" : line->word);
    }
    printf("\npeak: multiply-adds right before each call; read: reading K and V of the shape\n");
    for (int i = 0; i < AT_SIMD_ISAS; i++)
        if (b->peak[i].one > 0)
            print_peak(b, &b->peak[i]);
    printf("a call of a prepared plan costs %.2f us, bind and call %.2f us\n", b->call * 1e6,
           b->bind_call * 1e6);
}

static void print_json_line(const struct bench *b, const struct line *line)
{
    struct result r = result_of(b, line);
    printf("{\"name\": ");
    cmd_print_json(line->name);
    printf(", \"problem\": ");
    cmd_print_json(line->word);
    printf(", \"type\": \"%s\", \"kv_type\": \"%s\", \"device\": ",
           attend_type_name(line->problem.a.q.type), attend_type_name(line->problem.a.k.type));
    cmd_print_json(line->problem.device);
    printf(", \"us\": %.3f, \"least_us\": %.3f, \"flops\": %.0f, \"bytes\": %.0f", r.us, r.least_us,
           line->problem.flops, line->problem.bytes);
    printf(", \"gflops\": %.3f, \"peak_gflops\": %.3f, \"of_peak\": %.4f", r.gflops, r.peak,
           r.of_peak);
    printf(", \"gbs\": %.3f, \"read_gbs\": %.3f, \"of_read\": %.4f", r.gbs, r.read, r.of_read);
    if (b->clock.serial)
        printf(", \"speedup\": %.4f, \"peak_speedup\": %.4f", r.speedup, r.peak_speedup);
    printf("}");
}

static void print_json(const struct bench *b)
{
    char cpu[128];
    at_os_cpu_name(cpu, sizeof cpu);
    printf("{\"cpu\": ");
    cmd_print_json(cpu);
    printf(", \"threads\": %d, \"reps\": %d, \"clock\": \"%s\", ", b->ctx->threads, (int)b->reps,
           b->clock.now == at_os_now ? "wall" : "cpu");
    printf("\"peaks\": [");
    for (int i = 0; i < AT_SIMD_ISAS; i++)
        printf("%s{\"isa\": \"%s\", \"one_thread_gflops\": %.3f, \"gflops\": %.3f}", i ? ", " : "",
               b->peak[i].isa, b->peak[i].one * 1e-9, b->peak[i].all * 1e-9);
    printf("], \"call_us\": %.3f, \"bind_call_us\": %.3f, \"results\": [", b->call * 1e6,
           b->bind_call * 1e6);
    for (int i = 0; i < b->nline; i++) {
        printf("%s\n", i ? "," : "");
        print_json_line(b, &b->line[i]);
    }
    printf("]}\n");
}

/* ---- the verb ---- */

static int read_flags(struct bench *b)
{
    static const char *const clocks[] = {"wall", "cpu", NULL};
    int clock = 0;
    if (!cmd_int(b->l, "--reps", 1, MOST_REPS, &b->reps) ||
        !cmd_choice(b->l, "--clock", clocks, &clock))
        return CMD_WRONG;
    b->clock.now = clock ? at_os_cpu_now : at_os_now;
    b->clock.serial = cmd_has(b->l, "--scaling");
    return CMD_DONE;
}

static int measure_and_tell(struct bench *b)
{
    int status = CMD_DONE;
    if (b->clock.now == at_os_cpu_now && b->ctx->threads > 1)
        status = cmd_wrong(b->l, "--clock cpu needs --threads 1: threads add up their time");
    for (int i = 0; i < b->nline && status == CMD_DONE; i++)
        status = prepare_line(b, &b->line[i]);
    if (status == CMD_DONE)
        status = measure(b);
    if (status == CMD_DONE)
        (cmd_has(b->l, "--json") ? print_json : print_table)(b);
    for (int i = 0; i < b->nline; i++) {
        bench_end(&b->line[i].problem);
        check_done(&b->line[i].ready);
    }
    return status;
}

/* The exec that the flags of sdpa made. */
static int measure_files(void *arg, attend_exec *exec)
{
    struct bench *b = arg;
    b->ctx = exec->ctx;
    b->files = exec;
    int status = add_line(b, "", NULL);
    return status == CMD_DONE ? measure_and_tell(b) : status;
}

static int measure_names(struct bench *b)
{
    int status = b->l->narg > 0 ? CMD_DONE : add_name(b, "");
    for (int i = 0; i < b->l->narg && status == CMD_DONE; i++)
        status = add_name(b, b->l->arg[i]);
    if (status == CMD_DONE)
        status = cmd_context(b->l, &b->ctx);
    if (status != CMD_DONE)
        return status;
    status = measure_and_tell(b);
    attend_ctx_free(b->ctx);
    return status;
}

static int run(const struct cmd_line *l)
{
    struct bench b = {.l = l, .reps = 7};
    if (cmd_has(l, "--list")) {
        list_shapes();
        return CMD_DONE;
    }
    b.line = calloc(MOST_LINES, sizeof *b.line);
    if (!b.line)
        return cmd_fail(l, NULL, "no memory");
    int status = read_flags(&b);
    if (status == CMD_DONE)
        status = cmd_has(l, "--q") ? sdpa_use(l, measure_files, &b) : measure_names(&b);
    free(b.line);
    return status;
}

const struct cmd_verb cmd_bench = {
    "bench",
    "[SHAPE | PROBLEM]... [flags] | --q Q.npy --k K.npy --v V.npy [flags]",
    "how fast attention is, beside what the machine can do",
    flags,
    run,
    false,
};
