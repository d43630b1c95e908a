/* SPDX-License-Identifier: MIT */
/* The reader of ONNX models: what it makes of good ones, and what it says about bad ones.  The
 * numbers of operators are ONNX's own tests' (t/890). */
#include "attend.h"
#include "gen_onnx.h"
#include "models.h"
#include "os.h"
#include "program.h"
#include "tap.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOLDER "880-onnx.tmp"
#define DIMS(...) ((const int64_t[]){__VA_ARGS__})
#define LIST(...) ((const float[]){__VA_ARGS__})

static attend_ctx *ctx;
static char err[512];

/* ---- graphs in the making ---- */

static struct gen_msg graph;

static void constant(const char *name, int type, int rank, const int64_t *dim, const void *data,
                     size_t size)
{
    struct gen_msg t = gen_onnx_tensor(name, type, rank, dim, data, size);
    gen_msg_add(&graph, GEN_CONSTANT, &t);
}

static void value(int field, const char *name, int type, int rank, const int64_t *dim)
{
    struct gen_msg v = gen_onnx_info(name, type, rank, dim);
    gen_msg_add(&graph, field, &v);
}

static void node(const char *words)
{
    struct gen_msg n = gen_onnx_node(words);
    gen_msg_add(&graph, GEN_NODE, &n);
}

static attend_onnx *open_graph(int64_t opset)
{
    attend_onnx *m = NULL;
    struct gen_msg file = gen_onnx_model(&graph, opset);
    err[0] = 0;
    if (attend_onnx_from_memory(file.data, file.size, &m, err, sizeof err) < 0 && m)
        bail("a model in spite of an error");
    gen_msg_free(&file);
    return m;
}

/* y = x + c, of (2, 3) and (3) */
static void small_graph(void)
{
    value(GEN_INPUT, "x", GEN_ONNX_F32, 2, DIMS(-1, 3));
    constant("c", GEN_ONNX_F32, 1, DIMS(3), LIST(10, 20, 30), 12);
    node("Add sum x,c y");
    value(GEN_OUTPUT, "y", GEN_ONNX_F32, 2, DIMS(-1, 3));
}

/* ---- running ---- */

static attend_array array(attend_type type, attend_shape shape, const void *data)
{
    return (attend_array){.type = type, .shape = shape, .data = (void *)(uintptr_t)data};
}

/* Builds m for these inputs and runs it: output 0, f32, into y; the others are not bound.  `bound`:
 * the data of inputs that come with the run. */
static int run_model(attend_onnx *m, const attend_array *in, const void *const *bound, float *y,
                     int64_t bytes)
{
    attend_array out[4] = {0};
    attend_binding bind[8];
    attend_onnx_info info;
    attend_plan *plan = NULL;
    attend_exec *exec = NULL;
    attend_graph *g = attend_graph_new(ctx);
    int n = 0, status = attend_onnx_build(m, g, in, out, err, sizeof err);
    if (status == 0 && (status = attend_compile(g, NULL, &plan)) < 0)
        snprintf(err, sizeof err, "%s", attend_graph_error(g));
    for (int i = 0; status == 0 && attend_onnx_input(m, i, &info) == 0; i++)
        if (!in[i].data) {
            int64_t size = (int64_t)attend_type_size(info.type);
            for (int d = 0; d < in[i].shape.rank; d++)
                size *= in[i].shape.dim[d];
            bind[n++] = (attend_binding){
                .name = info.name, .data = (void *)(uintptr_t)bound[i], .bytes = size};
        }
    if (status == 0 && attend_onnx_output(m, 0, &info) == 0)
        bind[n++] = (attend_binding){.name = info.name, .data = y, .bytes = bytes};
    if (status == 0)
        status = attend_exec_new(plan, &exec);
    if (status == 0 &&
        ((status = attend_bind(exec, bind, n)) < 0 || (status = attend_run(exec)) < 0))
        snprintf(err, sizeof err, "%s", attend_exec_error(exec));
    attend_exec_free(exec);
    attend_plan_free(plan);
    attend_graph_free(g);
    return status;
}

/* ---- good models ---- */

static void test_small(void)
{
    float y[6] = {0};
    attend_onnx_info info;
    small_graph();
    attend_onnx *m = open_graph(17);
    if (!ok(m != NULL, "a small model: %s", err))
        return;
    is_int(attend_onnx_input(m, 0, &info), 0, "it has an input");
    is_str(info.name, "x", "of this name");
    ok(info.type == ATTEND_F32 && info.shape.rank == 2 && info.shape.dim[0] == -1 &&
           info.shape.dim[1] == 3,
       "of (any, 3) f32");
    is_int(attend_onnx_input(m, 1, &info), ATTEND_EINVAL, "and no other: the constant is none");
    const attend_array x = array(ATTEND_F32, ATTEND_SHAPE(2, 3), NULL);
    const void *data[] = {LIST(1, 2, 3, 4, 5, 6)};
    is_int(run_model(m, &x, data, y, sizeof y), 0, "it runs: %s", err);
    is_mem(y, LIST(11, 22, 33, 14, 25, 36), sizeof y, "and adds");

    attend_graph *g = attend_graph_new(ctx);
    attend_array wrong = array(ATTEND_F32, ATTEND_SHAPE(2, 4), NULL), out;
    is_int(attend_onnx_build(m, g, &wrong, &out, err, sizeof err), ATTEND_EINVAL, "another shape");
    is_str(err, "input 'x' is 2 x 4, the model wants ? x 3", "is refused in these words");
    wrong = array(ATTEND_F16, ATTEND_SHAPE(2, 3), NULL);
    is_int(attend_onnx_build(m, g, &wrong, &out, err, sizeof err), ATTEND_EINVAL, "another type");
    is_str(err, "input 'x' is f16, the model wants f32", "is refused in these words");
    attend_graph_free(g);
    attend_onnx_free(m);
}

/* Shapes that a model computes from the shapes of its inputs, as exporters write them. */
static void test_shapes(void)
{
    float y[6] = {0};
    value(GEN_INPUT, "x", GEN_ONNX_F32, 2, DIMS(-1, -1));
    constant("one", GEN_ONNX_I64, 0, NULL, DIMS(1), 8);
    constant("zero", GEN_ONNX_I64, 1, DIMS(1), DIMS(0), 8);
    constant("rest", GEN_ONNX_I64, 1, DIMS(1), DIMS(-1), 8);
    node("Shape a x s");
    node("Gather b s,one n");
    node("Mul c n,one n1");
    node("Unsqueeze d n1,zero u");
    node("Concat e u,rest t");
    struct gen_msg transpose = gen_onnx_node("Transpose f x xt");
    gen_onnx_set_ints(&transpose, "perm", 2, DIMS(1, 0));
    gen_msg_add(&graph, GEN_NODE, &transpose);
    node("Reshape g xt,t y");
    value(GEN_OUTPUT, "y", GEN_ONNX_F32, 2, DIMS(-1, -1));
    attend_onnx *m = open_graph(17);
    const attend_array x = array(ATTEND_F32, ATTEND_SHAPE(2, 3), NULL);
    const void *data[] = {LIST(1, 2, 3, 4, 5, 6)};
    if (!ok(m != NULL, "a model that computes shapes: %s", err))
        return;
    is_int(run_model(m, &x, data, y, sizeof y), 0, "it runs: %s", err);
    is_mem(y, LIST(1, 4, 2, 5, 3, 6), sizeof y, "and transposes");
    attend_onnx_free(m);
}

/* One query row, four keys of which two are in use: NaN in the others must not show. */
static void test_hidden(void)
{
    float y[2] = {0};
    value(GEN_INPUT, "q", GEN_ONNX_F32, 4, DIMS(1, 1, 1, 2));
    value(GEN_INPUT, "k", GEN_ONNX_F32, 4, DIMS(1, 1, 4, 2));
    value(GEN_INPUT, "v", GEN_ONNX_F32, 4, DIMS(1, 1, 4, 2));
    value(GEN_INPUT, "n", GEN_ONNX_I64, 1, DIMS(1));
    struct gen_msg attention = gen_onnx_node("Attention att q,k,v,-,-,-,n y");
    gen_onnx_set_int(&attention, "is_causal", 1);
    gen_onnx_set_float(&attention, "scale", 1);
    gen_msg_add(&graph, GEN_NODE, &attention);
    value(GEN_OUTPUT, "y", GEN_ONNX_F32, 4, DIMS(1, 1, 1, 2));
    attend_onnx *m = open_graph(24);
    if (!ok(m != NULL, "attention: %s", err))
        return;
    const attend_array in[] = {array(ATTEND_F32, ATTEND_SHAPE(1, 1, 1, 2), NULL),
                               array(ATTEND_F32, ATTEND_SHAPE(1, 1, 4, 2), NULL),
                               array(ATTEND_F32, ATTEND_SHAPE(1, 1, 4, 2), NULL),
                               array(ATTEND_I64, ATTEND_SHAPE(1), DIMS(2))};
    const void *data[] = {LIST(1, 0), LIST(0, 5, 1.0986123f, 5, NAN, NAN, NAN, NAN),
                          LIST(4, 8, 8, 16, NAN, NAN, NAN, NAN), NULL};
    is_int(run_model(m, in, data, y, sizeof y), 0, "it runs: %s", err);
    ok(fabsf(y[0] - 7) < 1e-5f && fabsf(y[1] - 14) < 1e-5f,
       "keys that are not in use are not seen: %g %g", (double)y[0], (double)y[1]);
    attend_onnx_free(m);
}

/* ---- bad models ---- */

/* The graph in the making is refused, when it is opened or when it is built for one input x (2, 3),
 * with this status and sentence. */
static void refused(int64_t opset, int status, const char *sentence, const char *what)
{
    attend_array x = array(ATTEND_F32, ATTEND_SHAPE(2, 3), NULL), out[2];
    int got = 0;
    attend_onnx *m = NULL;
    struct gen_msg file = gen_onnx_model(&graph, opset);
    err[0] = 0;
    got = attend_onnx_from_memory(file.data, file.size, &m, err, sizeof err);
    gen_msg_free(&file);
    if (got == 0) {
        attend_graph *g = attend_graph_new(ctx);
        got = attend_onnx_build(m, g, &x, out, err, sizeof err);
        attend_graph_free(g);
    }
    attend_onnx_free(m);
    is_int(got, status, "%s is refused", what);
    is_str(err, sentence, "in these words");
}

/* x (2, 3) and y, with what is between them added by the caller. */
static void ends(void)
{
    value(GEN_INPUT, "x", GEN_ONNX_F32, 2, DIMS(2, 3));
    value(GEN_OUTPUT, "y", GEN_ONNX_F32, 2, DIMS(-1, -1));
}

static void test_nodes(void)
{
    ends();
    node("Conv first x y");
    refused(17, ATTEND_EUNSUPPORTED, "node 'first' (Conv): operator 'Conv' is not supported",
            "an operator that is not here");
    ends();
    struct gen_msg foreign = gen_onnx_node("Add - x,x y");
    gen_msg_text(&foreign, 7, "org.example");
    gen_msg_add(&graph, GEN_NODE, &foreign);
    refused(17, ATTEND_EUNSUPPORTED,
            "node 'y' (Add): operator 'Add' of org.example is not supported",
            "an operator of a set that is not here");
    ends();
    node("Attention att x,x,x y");
    refused(22, ATTEND_EUNSUPPORTED,
            "node 'att' (Attention): opset 22, supported are those from 23 on",
            "an operator before its time");
    ends();
    node("Attention att x,x,x y");
    refused(23, ATTEND_EINVAL, "node 'att' (Attention): input 0 has rank 2, wants 3 or 4",
            "attention of matrices");
    ends();
    node("Relu r z y");
    refused(17, ATTEND_EFORMAT, "node 'r' (Relu): it reads 'z', which nothing before it makes",
            "a value from nowhere");
    ends();
    node("Relu r - y");
    refused(17, ATTEND_EFORMAT, "node 'r' (Relu): input 0 is missing", "a missing input");
    ends();
    node("Relu r x x");
    refused(17, ATTEND_EFORMAT, "two values have the name 'x'", "a value made twice");
    ends();
    node("Relu r x z");
    refused(17, ATTEND_EFORMAT, "node 'y' (output): nothing makes it", "an output from nowhere");
    ends();
    node("MatMul m x,x y");
    refused(
        17, ATTEND_EINVAL,
        "node 'm' (MatMul): matmul 'm': 2 x 3 and 2 x 3 do not fit: wants (..., m, k) and (..., "
        "k, n)",
        "a product that does not fit");
    ends();
    struct gen_msg softmax = gen_onnx_node("Softmax s x y");
    gen_onnx_set_int(&softmax, "axis", 2);
    gen_msg_add(&graph, GEN_NODE, &softmax);
    refused(17, ATTEND_EINVAL, "node 's' (Softmax): axis 2 of a tensor of rank 2", "a far axis");
    ends();
    softmax = gen_onnx_node("Softmax s x y");
    gen_onnx_set_float(&softmax, "axis", 1);
    gen_msg_add(&graph, GEN_NODE, &softmax);
    refused(17, ATTEND_EFORMAT, "node 's' (Softmax): attribute axis is of type 1, wants 2",
            "an attribute of another type");
}

static void test_known(void)
{
    ends();
    node("Reshape r x,x y");
    refused(17, ATTEND_EFORMAT, "node 'r' (Reshape): 'x' is f32, wants integers",
            "a shape of floats");
    ends();
    constant("s", GEN_ONNX_I64, 1, DIMS(2), DIMS(4, 2), 16);
    node("Reshape r x,s y");
    refused(17, ATTEND_EINVAL, "node 'r' (Reshape): 2 x 3 cannot become 4 x 2",
            "a shape that does not fit");
    ends();
    constant("s", GEN_ONNX_I64, 1, DIMS(2), DIMS(INT64_MAX, INT64_MAX), 16);
    node("Reshape r x,s y");
    refused(17, ATTEND_EINVAL,
            "node 'r' (Reshape): 2 x 3 cannot become 9223372036854775807 x 9223372036854775807",
            "a shape past all sizes");
    ends();
    constant("s", GEN_ONNX_I64, 1, DIMS(2), DIMS((int64_t)1 << 40, (int64_t)1 << 20), 16);
    node("ConstantOfShape z s y");
    refused(17, ATTEND_ENOMEM,
            "node 'z' (ConstantOfShape): no memory for 1152921504606846976 elements",
            "a constant past all memory");
    ends();
    constant("a", GEN_ONNX_I64, 0, NULL, DIMS(0), 8);
    constant("b", GEN_ONNX_I64, 0, NULL, DIMS(INT64_MAX), 8);
    constant("c", GEN_ONNX_I64, 0, NULL, DIMS(1), 8);
    node("Range r a,b,c y");
    refused(17, ATTEND_ELIMIT, "node 'r' (Range): 1048577 integers; at most 1048576 are worked out",
            "a range past all sizes");
    ends();
    constant("a", GEN_ONNX_I64, 1, DIMS(2), DIMS(0, 1), 16);
    constant("b", GEN_ONNX_I64, 0, NULL, DIMS(9), 8);
    node("Range r a,b,b y");
    refused(17, ATTEND_EINVAL, "node 'r' (Range): 'a' has 2 numbers, wants one",
            "two numbers for one");
    ends();
    constant("a", GEN_ONNX_I64, 1, DIMS(1), DIMS(9), 8);
    node("Gather g x,a y");
    refused(17, ATTEND_EINVAL, "node 'g' (Gather): index 9 of an axis of extent 2",
            "an index outside");
}

static void test_tensors(void)
{
    ends();
    constant("c", GEN_ONNX_F32, 1, DIMS(3), LIST(1, 2), 8);
    refused(17, ATTEND_EFORMAT, "tensor 'c' has 8 bytes, wants 12", "a tensor with too few bytes");
    ends();
    constant("c", GEN_ONNX_F32, 2, DIMS(INT64_MAX, INT64_MAX), LIST(1, 2), 8);
    refused(17, ATTEND_EFORMAT, "tensor 'c' has more elements than any file",
            "a tensor past all sizes");
    ends();
    constant("c", GEN_ONNX_F32, 2, DIMS(-1, 2), LIST(1, 2), 8);
    refused(17, ATTEND_EFORMAT, "tensor 'c' has an axis of extent -1", "a negative extent");
    ends();
    constant("c", GEN_ONNX_F32, 7, DIMS(1, 1, 1, 1, 1, 1, 1), LIST(1), 4);
    refused(17, ATTEND_ELIMIT, "tensor 'c' has 7 axes; at most 6 are supported", "too many axes");
    ends();
    constant("c", GEN_ONNX_STRING, 1, DIMS(1), LIST(1), 4);
    refused(17, ATTEND_EUNSUPPORTED,
            "tensor 'c' has elements of type 8 (string), which is not here", "a tensor of strings");
    ends();
    struct gen_msg t = {0}, place = {0};
    gen_msg_int(&t, 1, 3);
    gen_msg_int(&t, 2, GEN_ONNX_F32);
    gen_msg_text(&t, 8, "c");
    gen_msg_text(&place, 1, "location");
    gen_msg_text(&place, 2, "../../etc/passwd");
    gen_msg_add(&t, 13, &place);
    gen_msg_int(&t, 14, 1);
    gen_msg_add(&graph, GEN_CONSTANT, &t);
    refused(17, ATTEND_EUNSUPPORTED, "tensor 'c' lies in another file",
            "a constant outside of memory");
    refused(0, ATTEND_EFORMAT, "the model imports no operator set of ONNX", "no operator set");
}

/* Every file that is cut short is refused; every file with a byte changed is refused or becomes a
 * graph: nothing else happens. */
static void test_damage(void)
{
    small_graph();
    struct gen_msg attention = gen_onnx_node("Attention att q,q,q,m z,-,-,w");
    gen_onnx_set_int(&attention, "is_causal", 1);
    gen_onnx_set_int(&attention, "qk_matmul_output_mode", 3);
    gen_msg_add(&graph, GEN_NODE, &attention);
    value(GEN_INPUT, "q", GEN_ONNX_F32, 4, DIMS(1, 2, 3, 4));
    value(GEN_INPUT, "m", GEN_ONNX_BOOL, 2, DIMS(3, 2));
    value(GEN_OUTPUT, "z", GEN_ONNX_F32, 4, DIMS(1, 2, 3, 4));
    value(GEN_OUTPUT, "w", GEN_ONNX_F32, 4, DIMS(1, 2, 3, 3));
    struct gen_msg file = gen_onnx_model(&graph, 24);
    int refusals = 0, silent = 0, built = 0;
    for (size_t n = 0; n < file.size; n++) {
        attend_onnx *m = NULL;
        err[0] = 0;
        refusals += attend_onnx_from_memory(file.data, n, &m, err, sizeof err) < 0 && !m;
        silent += !err[0];
        attend_onnx_free(m);
    }
    is_int(refusals, (int64_t)file.size, "each of %d files that are cut short is refused",
           (int)file.size);
    is_int(silent, 0, "with a sentence");
    for (size_t n = 0; n < file.size * 8; n++) {
        attend_onnx *m = NULL;
        const attend_array in[] = {array(ATTEND_F32, ATTEND_SHAPE(2, 3), NULL),
                                   array(ATTEND_F32, ATTEND_SHAPE(1, 2, 3, 4), NULL),
                                   array(ATTEND_BOOL, ATTEND_SHAPE(3, 2), NULL),
                                   {0},
                                   {0}};
        attend_array out[5];
        attend_onnx_info info;
        file.data[n / 8] ^= (unsigned char)(1u << n % 8);
        err[0] = 0;
        int status = attend_onnx_from_memory(file.data, file.size, &m, err, sizeof err);
        bool few = status == 0 && attend_onnx_input(m, 5, &info) < 0 &&
                   attend_onnx_output(m, 5, &info) < 0;
        attend_graph *g = attend_graph_new(ctx);
        if (few)
            status = attend_onnx_build(m, g, in, out, err, sizeof err);
        built += few && status == 0;
        silent += status < 0 && !err[0];
        attend_graph_free(g);
        attend_onnx_free(m);
        file.data[n / 8] ^= (unsigned char)(1u << n % 8);
    }
    is_int(silent, 0,
           "a bit that is wrong is survived, and where it is an error it has a sentence");
    ok(built > 0 && built < (int)file.size * 8, "%d of %d were models all the same", built,
       (int)file.size * 8);
    gen_msg_free(&file);
}

/* ---- the program ---- */

static void write_file(const char *path, const void *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0)
        bail("cannot write %s", path);
}

static void write_npy(const char *path, attend_type type, attend_shape shape, const void *data,
                      int64_t bytes)
{
    attend_array a = array(type, shape, data);
    a.bytes = bytes;
    if (attend_npy_write(path, &a, err, sizeof err) < 0)
        bail("%s", err);
}

static void write_set(const char *name, const float *y)
{
    char path[100];
    snprintf(path, sizeof path, FOLDER "/%s", name);
    if (at_os_make_dir(path, err, sizeof err) < 0)
        bail("%s", err);
    struct gen_msg x = gen_onnx_tensor("x", GEN_ONNX_F32, 2, DIMS(1, 3), LIST(1, 2, 3), 12);
    struct gen_msg t = gen_onnx_tensor("y", GEN_ONNX_F32, 2, DIMS(1, 3), y, 12);
    snprintf(path, sizeof path, FOLDER "/%s/input_0.pb", name);
    write_file(path, x.data, x.size);
    snprintf(path, sizeof path, FOLDER "/%s/output_0.pb", name);
    write_file(path, t.data, t.size);
    gen_msg_free(&x);
    gen_msg_free(&t);
}

static void test_program(void)
{
    attend_array y;
    program_init(FOLDER);
    small_graph();
    struct gen_msg file = gen_onnx_model(&graph, 17);
    write_file(FOLDER "/model.onnx", file.data, file.size);
    write_file(FOLDER "/short.onnx", file.data, file.size / 2);
    gen_msg_free(&file);
    write_npy(FOLDER "/x.npy", ATTEND_F64, ATTEND_SHAPE(1, 3), (const double[]){1, 2, 3}, 24);
    write_npy(FOLDER "/i.npy", ATTEND_I64, ATTEND_SHAPE(1, 3), DIMS(1, 2, 3), 24);

    is_int(program_run("run model.onnx --input x=x.npy -o out"), 0, "attend run: %s", program_err);
    if (is_int(attend_npy_read(FOLDER "/out/y.npy", &y, err, sizeof err), 0, "writes y: %s", err)) {
        ok(y.type == ATTEND_F32 && y.bytes == 12, "of 3 f32, though the input was f64");
        is_mem(y.data, LIST(11, 22, 33), 12, "the sum");
        attend_free(y.data);
    }
    program_run("run model.onnx -o no");
    program_said(1, "attend run: model.onnx: input \"x\" is missing: --input x=FILE.npy");
    program_run("run model.onnx --input z=x.npy -o no");
    program_said(1, "attend run: model.onnx: there is no input \"z\"");
    program_run("run model.onnx --input x=i.npy -o no");
    program_said(1, "attend run: i.npy: the type is i64, the model wants f32");
    program_run("run model.onnx --input x -o no");
    program_said(2, "attend run: --input: \"x\" is not NAME=FILE");
    program_run("run model.onnx --input x=x.npy");
    program_said(2, "attend run: -o is missing: where do the results go?");
    program_run("run short.onnx --input x=x.npy -o no");
    program_said(1, "attend run: \"short.onnx\": it is no ONNX model, or is damaged or cut short");
    is_int(program_run("plan run model.onnx --input x=x.npy"), 0, "attend plan run");
    ok(strstr(program_out, "add f32 [1 x 3]") != NULL, "prints the plan: %s", program_out);
    program_left("i.npy model.onnx out short.onnx x.npy ");

    program_run("run --onnx-test .");
    program_said(1, "attend run: .: there is no test_data_set_0 with an output_0.pb");
    write_set("test_data_set_0", LIST(11, 22, 33));
    is_int(program_run("run --onnx-test ."), 0, "a test that passes");
    is_str(program_out, "pass ./test_data_set_0\n", "says so");
    write_set("test_data_set_1", LIST(11, 22.03f, 33));
    program_run("run --onnx-test .");
    program_said(1, "attend run: .: 1 of 2 data sets failed");
    is_str(program_out,
           "pass ./test_data_set_0\n"
           "fail ./test_data_set_1: output y: element 1 is 22, want 22.0300007\n",
           "and which element differs");
    program_fini();
}

int main(void)
{
    attend_onnx *m = NULL;
    if (attend_onnx_from_memory("", 0, &m, err, sizeof err) == ATTEND_EUNSUPPORTED)
        skip_all("%s", err);
    is_str(err, "it is no ONNX model: it has no graph", "no bytes are no model");
    if (attend_ctx_new(NULL, &ctx) < 0)
        bail("no context");
    test_small();
    test_shapes();
    test_hidden();
    test_nodes();
    test_known();
    test_tensors();
    test_damage();
    attend_ctx_free(ctx);
    test_program();
    return done_testing();
}
