/* SPDX-License-Identifier: MIT */
/* attend run: a model from an ONNX file on tensors from .npy files; or a folder of ONNX's own
 * tests, whose tensors and expected results are .pb files. */
#include "cmd.h"
#include "models.h"
#include "os.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cmd_flag flags[] = {
    {"--input",     "NAME=FILE.npy",         "an input of the model; repeated for each",    NULL},
    {"-o",          "DIR",                   "outputs go to DIR/NAME.npy (bf16 as uint16)", NULL},
    {"--onnx-test", "DIR",
     "runs DIR/model.onnx on DIR/test_data_set_*/input_*.pb "
     "and compares with output_*.pb",                                                       NULL},
    {"--precision", "exact|tf32|int8|f16_p", "of products and sums (exact)",                NULL},
    {NULL,          NULL,                    NULL,                                          NULL},
};

/* A model with the tensors of one run, in the types that the model says. */
struct session {
    const struct cmd_line *l;
    const char *file;
    attend_ctx *ctx;
    attend_onnx *onnx;
    attend_array *in, *out;
    int nin, nout;
};

static int64_t count_of(const attend_shape *s)
{
    int64_t n = 1;
    for (int d = 0; d < s->rank; d++)
        n *= s->dim[d];
    return n;
}

static bool is_float(attend_type type)
{
    return type == ATTEND_F32 || type == ATTEND_F16 || type == ATTEND_BF16 || type == ATTEND_F64;
}

static bool is_integer(attend_type type)
{
    return type == ATTEND_I8 || type == ATTEND_U8 || type == ATTEND_I32 || type == ATTEND_I64;
}

static attend_onnx_info input_info(const struct session *s, int i)
{
    attend_onnx_info info = {0};
    (void)attend_onnx_input(s->onnx, i, &info);
    return info;
}

static attend_onnx_info output_info(const struct session *s, int i)
{
    attend_onnx_info info = {0};
    (void)attend_onnx_output(s->onnx, i, &info);
    return info;
}

/* ---- opening and closing ---- */

static int open_session(struct session *s, const char *file)
{
    char err[512];
    attend_onnx_info info;
    s->file = file;
    if (attend_onnx_open(file, &s->onnx, err, sizeof err) < 0)
        return cmd_fail(s->l, NULL, "%s", err);
    while (attend_onnx_input(s->onnx, s->nin, &info) == 0)
        s->nin++;
    while (attend_onnx_output(s->onnx, s->nout, &info) == 0)
        s->nout++;
    s->in = calloc((size_t)s->nin + 1, sizeof *s->in);
    s->out = calloc((size_t)s->nout + 1, sizeof *s->out);
    if (!s->in || !s->out)
        return cmd_fail(s->l, file, "no memory for %d inputs", s->nin);
    return cmd_context(s->l, &s->ctx);
}

static void free_arrays(attend_array *a, int n)
{
    for (int i = 0; i < n; i++) {
        attend_free(a[i].data);
        a[i].data = NULL;
    }
}

static void close_session(struct session *s)
{
    if (s->in)
        free_arrays(s->in, s->nin);
    if (s->out)
        free_arrays(s->out, s->nout);
    free(s->in);
    free(s->out);
    attend_onnx_free(s->onnx);
    attend_ctx_free(s->ctx);
}

/* ---- one run ---- */

/* Integers, and booleans but large ones, are known when the graph is made, so that they may say
 * shapes and make masks; the rest is bound. */
static bool is_bound(const attend_array *a)
{
    return is_float(a->type) || (a->type == ATTEND_BOOL && count_of(&a->shape) > 1 << 20);
}

static int build(struct session *s, attend_graph *g)
{
    char err[512];
    attend_array *in = calloc((size_t)s->nin + 1, sizeof *in);
    if (!in)
        return cmd_fail(s->l, s->file, "no memory for %d inputs", s->nin);
    for (int i = 0; i < s->nin; i++) {
        in[i] = s->in[i];
        if (is_bound(&in[i]))
            in[i].data = NULL;
    }
    int status = attend_onnx_build(s->onnx, g, in, s->out, err, sizeof err);
    free(in);
    return status < 0 ? cmd_fail(s->l, s->file, "%s", err) : CMD_DONE;
}

/* A copy of a in another floating type. */
static int converted(const struct session *s, const attend_array *a, attend_type type,
                     attend_array *out)
{
    int64_t n = count_of(&a->shape);
    *out = (attend_array){type, a->shape, NULL, n * (int64_t)attend_type_size(type)};
    out->data = malloc((size_t)out->bytes + 1);
    if (!out->data)
        return cmd_fail(s->l, s->file, "no memory for %" PRId64 " bytes", out->bytes);
    if (attend_convert(type, out->data, a->type, a->data, n) < 0)
        return cmd_fail(s->l, s->file, "%s cannot become %s", attend_type_name(a->type),
                        attend_type_name(type));
    return CMD_DONE;
}

/* Replaces a by itself in another type. */
static int convert(const struct session *s, attend_array *a, attend_type type)
{
    attend_array b;
    int status = a->type == type ? CMD_DONE : converted(s, a, type, &b);
    if (a->type == type)
        return CMD_DONE;
    attend_free(a->data);
    *a = b;
    return status;
}

/* Outputs that are known already are copied, the others get memory to be bound: f64 as f32. */
static int make_output(struct session *s, int i, bool *bound)
{
    attend_array *a = &s->out[i];
    const void *known = a->data;
    attend_type type = a->type == ATTEND_F64 && !known ? ATTEND_F32 : a->type;
    a->type = type;
    a->bytes = count_of(&a->shape) * (int64_t)attend_type_size(type);
    a->data = malloc((size_t)a->bytes + 1);
    *bound = !known;
    if (!a->data)
        return cmd_fail(s->l, s->file, "no memory for %" PRId64 " bytes", a->bytes);
    if (known)
        memcpy(a->data, known, (size_t)a->bytes);
    return CMD_DONE;
}

static attend_binding binding(const char *name, const attend_array *a)
{
    return (attend_binding){.name = name, .data = a->data, .bytes = a->bytes};
}

/* Binds what the graph has: inputs and outputs that are not known. */
static int bind_and_run(struct session *s, attend_exec *exec, const bool *bound)
{
    attend_binding *bind = calloc((size_t)s->nin + (size_t)s->nout + 1, sizeof *bind);
    int n = 0, status = bind ? CMD_DONE : cmd_fail(s->l, s->file, "no memory");
    for (int i = 0; i < s->nin && status == CMD_DONE; i++) {
        if (s->in[i].type == ATTEND_F64)
            status = convert(s, &s->in[i], ATTEND_F32);
        if (is_bound(&s->in[i]))
            bind[n++] = binding(input_info(s, i).name, &s->in[i]);
    }
    for (int i = 0; i < s->nout && status == CMD_DONE; i++)
        if (bound[i])
            bind[n++] = binding(output_info(s, i).name, &s->out[i]);
    if (status == CMD_DONE && (attend_bind(exec, bind, n) < 0 || attend_run(exec) < 0))
        status = cmd_fail(s->l, s->file, "%s", attend_exec_error(exec));
    free(bind);
    return status;
}

static int run_plan(struct session *s, attend_plan *plan, const bool *bound)
{
    attend_exec *exec;
    if (s->l->plan)
        return cmd_print_plan(s->l, plan);
    int made = attend_exec_new(plan, &exec);
    if (made < 0)
        return cmd_fail(s->l, s->file, "cannot prepare a run: %s", attend_status_name(made));
    int status = bind_and_run(s, exec, bound);
    attend_exec_free(exec);
    return status;
}

static int run_graph(struct session *s, attend_graph *g)
{
    attend_plan *plan;
    bool any = false, *bound = calloc((size_t)s->nout + 1, sizeof *bound);
    int status = bound ? build(s, g) : cmd_fail(s->l, s->file, "no memory");
    for (int i = 0; i < s->nout && status != CMD_DONE; i++)
        s->out[i].data = NULL; /* not ours */
    for (int i = 0; i < s->nout && status == CMD_DONE; i++) {
        status = make_output(s, i, &bound[i]);
        any |= bound[i];
    }
    if (status == CMD_DONE && any && (status = cmd_compile(s->l, g, &plan)) == CMD_DONE) {
        status = run_plan(s, plan, bound);
        attend_plan_free(plan);
    }
    for (int i = 0; i < s->nout && status == CMD_DONE && !s->l->plan; i++)
        status = convert(s, &s->out[i], output_info(s, i).type);
    free(bound);
    return status;
}

/* From s->in to s->out. */
static int run_once(struct session *s)
{
    attend_graph *g = attend_graph_new(s->ctx);
    if (!g)
        return cmd_fail(s->l, s->file, "no memory");
    int status = run_graph(s, g);
    attend_graph_free(g);
    return status;
}

/* ---- inputs from .npy files ---- */

static int find_input(const struct session *s, const char *name, size_t length)
{
    for (int i = 0; i < s->nin; i++) {
        const char *have = input_info(s, i).name;
        if (strlen(have) == length && memcmp(have, name, length) == 0)
            return i;
    }
    return -1;
}

/* Integers as int64, int32 or bool. */
static int convert_integers(const struct session *s, const char *file, attend_array *a,
                            attend_type type)
{
    int64_t n = count_of(&a->shape);
    attend_array b = {type, a->shape, NULL, n * (int64_t)attend_type_size(type)};
    b.data = malloc((size_t)b.bytes + 1);
    if (!b.data)
        return cmd_fail(s->l, file, "no memory for %" PRId64 " bytes", b.bytes);
    for (int64_t i = 0; i < n; i++) {
        int64_t x = cmd_integer_at(a, i);
        if (type == ATTEND_I64) {
            ((int64_t *)b.data)[i] = x;
        } else if (type == ATTEND_BOOL) {
            ((uint8_t *)b.data)[i] = x != 0;
        } else if (x < INT32_MIN || x > INT32_MAX) {
            free(b.data);
            return cmd_fail(s->l, file, "%" PRId64 " is no int32, which the model wants", x);
        } else {
            ((int32_t *)b.data)[i] = (int32_t)x;
        }
    }
    attend_free(a->data);
    *a = b;
    return CMD_DONE;
}

/* The type that the model wants; uint16 holds bf16 only where that is wanted. */
static int fit_type(const struct session *s, const char *file, attend_array *a, attend_type want)
{
    bool numbers = is_float(a->type) && is_float(want) && a->type != ATTEND_BF16;
    if (a->type == want)
        return CMD_DONE;
    if (numbers)
        return convert(s, a, want);
    if (is_integer(a->type) && (want == ATTEND_I32 || want == ATTEND_I64 || want == ATTEND_BOOL))
        return convert_integers(s, file, a, want);
    return cmd_fail(s->l, file, "the type is %s, the model wants %s",
                    a->type == ATTEND_BF16 ? "uint16" : attend_type_name(a->type),
                    attend_type_name(want));
}

/* NAME=FILE */
static int read_input(struct session *s, const char *given)
{
    char err[512];
    const char *equals = strrchr(given, '=');
    if (!equals || equals == given)
        return cmd_wrong(s->l, "--input: \"%s\" is not NAME=FILE", given);
    int i = find_input(s, given, (size_t)(equals - given));
    if (i < 0)
        return cmd_fail(s->l, s->file, "there is no input \"%.*s\"", (int)(equals - given), given);
    if (s->in[i].data)
        return cmd_wrong(s->l, "--input %s is given twice", input_info(s, i).name);
    if (attend_npy_read(equals + 1, &s->in[i], err, sizeof err) < 0) {
        s->in[i].data = NULL;
        return cmd_fail(s->l, NULL, "%s", err);
    }
    return fit_type(s, equals + 1, &s->in[i], input_info(s, i).type);
}

static int read_inputs(struct session *s)
{
    const char *given;
    int status = CMD_DONE;
    for (int at = 0; status == CMD_DONE && (given = cmd_next(s->l, "--input", &at));)
        status = read_input(s, given);
    for (int i = 0; i < s->nin && status == CMD_DONE; i++)
        if (!s->in[i].data)
            status = cmd_fail(s->l, s->file, "input \"%s\" is missing: --input %s=FILE.npy",
                              input_info(s, i).name, input_info(s, i).name);
    return status;
}

/* ---- outputs to .npy files ---- */

/* DIR/NAME.npy; characters that may mean something in a path become '_'. */
static void output_path(const char *dir, const char *name, char *path, size_t size)
{
    int n = snprintf(path, size, "%s/%s.npy", dir, name);
    size_t from = strlen(dir) + 1, to = n < 0 || (size_t)n >= size ? 0 : (size_t)n - 4;
    for (size_t k = from; k < to; k++)
        if (!isalnum((unsigned char)path[k]) && !strchr("_-+", path[k]) &&
            !(path[k] == '.' && k > from))
            path[k] = '_';
    if (!to)
        path[0] = 0;
}

static int write_outputs(struct session *s)
{
    char err[512], path[1024], other[1024];
    const char *dir = cmd_value(s->l, "-o");
    if (at_os_make_dir(dir, err, sizeof err) < 0)
        return cmd_fail(s->l, dir, "%s", err);
    for (int i = 0; i < s->nout; i++) {
        output_path(dir, output_info(s, i).name, path, sizeof path);
        for (int k = 0; k < i; k++) {
            output_path(dir, output_info(s, k).name, other, sizeof other);
            if (strcmp(path, other) == 0)
                return cmd_fail(s->l, s->file, "two outputs would be written to %s", path);
        }
        if (!path[0])
            return cmd_fail(s->l, s->file, "the name of output %d is too long for a file", i);
        if (attend_npy_write(path, &s->out[i], err, sizeof err) < 0)
            return cmd_fail(s->l, NULL, "%s", err);
    }
    return CMD_DONE;
}

static void print_json(const struct session *s)
{
    for (int i = 0; i < s->nout; i++) {
        const attend_array *a = &s->out[i];
        printf("{\"name\": ");
        cmd_print_json(output_info(s, i).name);
        printf(", \"type\": \"%s\", \"shape\": [", attend_type_name(a->type));
        for (int d = 0; d < a->shape.rank; d++)
            printf("%s%" PRId64, d ? ", " : "", a->shape.dim[d]);
        printf("]}\n");
    }
}

static int run_files(struct session *s)
{
    int status = open_session(s, s->l->arg[0]);
    if (status == CMD_DONE)
        status = read_inputs(s);
    if (status == CMD_DONE)
        status = run_once(s);
    if (status == CMD_DONE && !s->l->plan)
        status = write_outputs(s);
    if (status == CMD_DONE && !s->l->plan && cmd_has(s->l, "--json"))
        print_json(s);
    return status;
}

/* ---- ONNX's tests ---- */

/* How far results may be off: |got - want| <= atol + rtol |want|.  f32 as ONNX's own runner has it;
 * of the short types four times the distance of two numbers at 1, and half of that around 0. */
static void tolerance(attend_type type, double *rtol, double *atol)
{
    *rtol = type == ATTEND_F16 ? 4e-3 : type == ATTEND_BF16 ? 3.2e-2 : 1e-3;
    *atol = type == ATTEND_F16 ? 2e-3 : type == ATTEND_BF16 ? 1.6e-2 : 1e-7;
    if (!is_float(type))
        *rtol = *atol = 0;
}

static double number_at(const attend_array *a, int64_t i)
{
    const char *at = (const char *)a->data + (size_t)i * attend_type_size(a->type);
    double x = (double)NAN;
    if (a->type == ATTEND_BOOL)
        return *at != 0;
    return attend_convert(ATTEND_F64, &x, a->type, at, 1) < 0 ? (double)NAN : x;
}

/* The first element that is off, or -1. */
static int64_t first_wrong(const attend_array *got, const attend_array *want)
{
    double rtol, atol;
    tolerance(want->type, &rtol, &atol);
    for (int64_t i = 0; i < count_of(&want->shape); i++) {
        double g = number_at(got, i), w = number_at(want, i);
        bool same = g == w || (isnan(g) && isnan(w));
        if (!same && !(isfinite(w) && fabs(g - w) <= atol + rtol * fabs(w)))
            return i;
    }
    return -1;
}

/* What is wrong with output i as a sentence; "": nothing. */
static void compare(const struct session *s, int i, const attend_array *want, char *why,
                    size_t size)
{
    const attend_array *got = &s->out[i];
    const char *name = output_info(s, i).name;
    bool same = got->type == want->type && got->shape.rank == want->shape.rank;
    for (int d = 0; same && d < got->shape.rank; d++)
        same = got->shape.dim[d] == want->shape.dim[d];
    why[0] = 0;
    if (!same) {
        snprintf(why, size, "output %s: type or shape is another", name);
        return;
    }
    int64_t at = first_wrong(got, want);
    if (at >= 0)
        snprintf(why, size, "output %s: element %" PRId64 " is %.9g, want %.9g", name, at,
                 number_at(got, at), number_at(want, at));
}

static void print_result(const struct session *s, const char *set, const char *why)
{
    if (cmd_has(s->l, "--json")) {
        printf("{\"data_set\": ");
        cmd_print_json(set);
        printf(", \"pass\": %s, \"why\": ", *why ? "false" : "true");
        cmd_print_json(why);
        printf("}\n");
    } else {
        printf("%s %s%s%s\n", *why ? "fail" : "pass", set, *why ? ": " : "", why);
    }
}

static int read_tensors(const struct session *s, const char *set, const char *what, int n,
                        attend_array *out)
{
    char path[1100], err[512];
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s_%d.pb", set, what, i);
        if (attend_onnx_tensor_read(path, &out[i], err, sizeof err) < 0) {
            out[i].data = NULL;
            return cmd_fail(s->l, NULL, "%s", err);
        }
    }
    return CMD_DONE;
}

/* One folder of inputs and outputs; *failed where a result is wrong. */
static int test_set(struct session *s, const char *set, bool *failed)
{
    char why[512] = "";
    attend_array *want = calloc((size_t)s->nout + 1, sizeof *want);
    int status = want ? CMD_DONE : cmd_fail(s->l, set, "no memory");
    if (status == CMD_DONE)
        status = read_tensors(s, set, "input", s->nin, s->in);
    if (status == CMD_DONE)
        status = read_tensors(s, set, "output", s->nout, want);
    if (status == CMD_DONE)
        status = run_once(s);
    for (int i = 0; i < s->nout && status == CMD_DONE && !*why && !s->l->plan; i++)
        compare(s, i, &want[i], why, sizeof why);
    if (status == CMD_DONE && !s->l->plan)
        print_result(s, set, why);
    if (want)
        free_arrays(want, s->nout);
    free(want);
    free_arrays(s->in, s->nin);
    free_arrays(s->out, s->nout);
    *failed = *why != 0;
    return status;
}

static bool exists(const char *set)
{
    char path[1100];
    struct at_os_map map;
    snprintf(path, sizeof path, "%s/output_0.pb", set);
    if (at_os_map_file(&map, path, NULL, 0) < 0)
        return false;
    at_os_unmap(&map);
    return true;
}

static int run_tests(struct session *s, const char *dir)
{
    char file[1000], set[1000];
    int failed = 0, n = 0;
    snprintf(file, sizeof file, "%s/model.onnx", dir);
    int status = open_session(s, file);
    for (; status == CMD_DONE; n++) {
        bool wrong;
        snprintf(set, sizeof set, "%s/test_data_set_%d", dir, n);
        if (!exists(set))
            break;
        status = test_set(s, set, &wrong);
        failed += wrong;
    }
    if (status != CMD_DONE)
        return status;
    if (n == 0)
        return cmd_fail(s->l, dir, "there is no test_data_set_0 with an output_0.pb");
    return failed ? cmd_fail(s->l, dir, "%d of %d data sets failed", failed, n) : CMD_DONE;
}

/* ---- the verb ---- */

static int check_flags(const struct cmd_line *l)
{
    bool test = cmd_has(l, "--onnx-test");
    if (test && (l->narg || cmd_has(l, "--input") || cmd_has(l, "-o")))
        return cmd_wrong(l, "--onnx-test brings its own model, inputs and outputs");
    if (!test && l->narg != 1)
        return cmd_wrong(l, l->narg ? "one model at a time" : "which model?");
    if (!test && !l->plan && !cmd_has(l, "-o"))
        return cmd_wrong(l, "-o is missing: where do the results go?");
    return CMD_DONE;
}

static int run(const struct cmd_line *l)
{
    struct session s = {.l = l};
    int status = check_flags(l);
    if (status != CMD_DONE)
        return status;
    const char *test = cmd_value(l, "--onnx-test");
    status = test ? run_tests(&s, test) : run_files(&s);
    close_session(&s);
    return status;
}

const struct cmd_verb cmd_run_onnx = {
    "run",
    "MODEL.onnx --input NAME=FILE.npy ... -o DIR",
    "a model from an ONNX file on tensors from .npy files",
    flags,
    run,
    true,
};
