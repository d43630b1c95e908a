/* SPDX-License-Identifier: MIT */
/* The program: `attend sdpa` on files in each layout, what it refuses and in which words, and the
 * verbs around it.  Numbers are compared between forms that mean the same; t/220 compares with the
 * reference. */
#include "tap.h"
#include "attend.h"
#include "env.h"
#include "os.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOLDER "860-sdpa.tmp"
#define ROWS(f) "--q " f "q.npy --k " f "k.npy --v " f "v.npy -o " FOLDER "/o.npy "
#define DENSE ROWS(FOLDER "/")

static const char *attend; /* the program */
static char err[4000];     /* what it said on stderr */
static char out[20000];    /* and on stdout */

static void read_text(const char *path, char *text, size_t size)
{
    FILE *f = fopen(path, "rb");
    size_t length = f ? fread(text, 1, size - 1, f) : 0;
    text[length] = 0;
    if (f)
        fclose(f);
}

/* Runs the program; its exit status, or -1 when a signal ended it. */
static int run(const char *args)
{
    char command[2000];
    snprintf(command, sizeof command,
             "'%s' %s >" FOLDER "/stdout 2>" FOLDER "/stderr; echo $? >" FOLDER "/status", attend,
             args);
    if (system(command) != 0)
        bail("cannot run %s", command);
    char status[16];
    read_text(FOLDER "/status", status, sizeof status);
    read_text(FOLDER "/stdout", out, sizeof out);
    read_text(FOLDER "/stderr", err, sizeof err);
    int n = atoi(status);
    return n >= 128 ? -1 : n;
}

/* ---- files ---- */

static void write_file(const char *name, attend_type type, attend_shape shape, const void *data,
                       int64_t bytes)
{
    char path[200], why[320];
    attend_array a = {
        .type = type, .shape = shape, .data = (void *)(uintptr_t)data, .bytes = bytes};
    snprintf(path, sizeof path, FOLDER "/%s.npy", name);
    if (attend_npy_write(path, &a, why, sizeof why) < 0)
        bail("%s", why);
}

static int64_t count(attend_shape s)
{
    int64_t n = 1;
    for (int d = 0; d < s.rank; d++)
        n *= s.dim[d];
    return n;
}

static float value(int64_t i, int64_t seed)
{
    uint64_t z = (uint64_t)(i + 1) * 0x9e3779b97f4a7c15 + (uint64_t)seed * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 29) * 0x94d049bb133111eb;
    return (float)(z >> 40) * 0x1p-23f - 1;
}

/* Seeded numbers in [-1, 1), multiples of 1/128 so that they are exact in every type. */
static void write_random(const char *name, attend_type type, attend_shape shape, int64_t seed)
{
    static float x[20000];
    static char data[80000];
    int64_t n = count(shape);
    for (int64_t i = 0; i < n; i++)
        x[i] = roundf(value(i, seed) * 128) / 128;
    if (attend_convert(type, data, ATTEND_F32, x, n) < 0)
        bail("cannot convert");
    write_file(name, type, shape, data, n * (int64_t)attend_type_size(type));
}

static attend_array read_file(const char *name)
{
    char path[200], why[320];
    attend_array a;
    snprintf(path, sizeof path, FOLDER "/%s.npy", name);
    if (attend_npy_read(path, &a, why, sizeof why) < 0) {
        diag("%s", why);
        return (attend_array){0};
    }
    return a;
}

/* (B, H, S, D) of a file to (B, S, H, D) of another. */
static void transpose_file(const char *from, const char *to, bool flat)
{
    attend_array a = read_file(from);
    const int64_t *n = a.shape.dim;
    float *x = a.data, *y = calloc((size_t)a.bytes + 1, 1);
    if (!x || !y)
        bail("cannot transpose %s", from);
    for (int64_t b = 0; b < n[0]; b++)
        for (int64_t h = 0; h < n[1]; h++)
            for (int64_t s = 0; s < n[2]; s++)
                memcpy(y + ((b * n[2] + s) * n[1] + h) * n[3],
                       x + ((b * n[1] + h) * n[2] + s) * n[3], (size_t)n[3] * sizeof *y);
    attend_shape shape =
        flat ? ATTEND_SHAPE(n[0], n[2], n[1] * n[3]) : ATTEND_SHAPE(n[0], n[2], n[1], n[3]);
    write_file(to, ATTEND_F32, shape, y, a.bytes);
    attend_free(a.data);
    free(y);
}

static bool same_shape(attend_shape a, attend_shape b)
{
    return a.rank == b.rank && memcmp(a.dim, b.dim, (size_t)a.rank * sizeof a.dim[0]) == 0;
}

/* Two files of equal shape and, within `bound`, equal numbers. */
static void same_files(const char *got, const char *want, double bound, const char *what)
{
    attend_array a = read_file(got), b = read_file(want);
    double worst = 0;
    bool shapes = a.data && b.data && same_shape(a.shape, b.shape) && a.type == b.type;
    for (int64_t i = 0; shapes && i < count(a.shape); i++) {
        double d = fabs((double)((float *)a.data)[i] - (double)((float *)b.data)[i]);
        worst = d > worst || isnan(d) ? d : worst;
    }
    if (!ok(shapes && worst <= bound, "%s", what))
        diag("shapes %s, difference %g, bound %g", shapes ? "agree" : "differ", worst, bound);
    attend_free(a.data);
    attend_free(b.data);
}

static void move_file(const char *from, const char *to)
{
    char a[200], b[200];
    snprintf(a, sizeof a, FOLDER "/%s.npy", from);
    snprintf(b, sizeof b, FOLDER "/%s.npy", to);
    remove(b);
    if (rename(a, b) != 0)
        diag("there is no %s", a);
}

static bool file_exists(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f)
        fclose(f);
    return f != NULL;
}

/* ---- what it does ---- */

static void good(const char *args, const char *what)
{
    int status = run(args);
    if (!ok(status == 0 && !*err, "%s", what))
        diag("exit %d: %s", status, err);
}

static void write_inputs(void)
{
    write_random("q", ATTEND_F32, ATTEND_SHAPE(2, 4, 5, 8), 1);
    write_random("k", ATTEND_F32, ATTEND_SHAPE(2, 2, 7, 8), 2);
    write_random("v", ATTEND_F32, ATTEND_SHAPE(2, 2, 7, 6), 3);
    write_random("q16", ATTEND_F16, ATTEND_SHAPE(2, 4, 5, 8), 1);
    write_random("k16", ATTEND_BF16, ATTEND_SHAPE(2, 2, 7, 8), 2);
    write_random("v64", ATTEND_F64, ATTEND_SHAPE(2, 2, 7, 6), 3);
    for (int flat = 0; flat < 2; flat++) {
        transpose_file("q", flat ? "fq" : "tq", flat);
        transpose_file("k", flat ? "fk" : "tk", flat);
        transpose_file("v", flat ? "fv" : "tv", flat);
    }
}

static void test_layouts(void)
{
    good("sdpa " DENSE "--lse " FOLDER "/lse.npy", "sdpa runs");
    move_file("o", "dense");
    move_file("lse", "dense-lse");
    transpose_file("dense", "swapped", false);
    transpose_file("dense", "flat", true);

    good("sdpa " ROWS(FOLDER "/t") "--layout bshd --lse " FOLDER "/lse.npy", "--layout bshd");
    same_files("o", "swapped", 1e-6, "O of bshd is in the layout of Q");
    same_files("lse", "dense-lse", 1e-6, "LSE of bshd is B,H,Sq");
    good("sdpa " ROWS(FOLDER "/f") "--heads 4,2", "--heads");
    same_files("o", "flat", 1e-6, "O of 3-D tensors is 3-D");
    good("sdpa --device ref --threads 1 --quiet " DENSE, "--device ref --threads 1 --quiet");
    same_files("o", "dense", 1e-5, "the reference agrees");
    good("sdpa --json " DENSE, "--json");
    is_str(out, "{\"type\": \"f32\", \"shape\": [2, 4, 5, 6]}\n", "tells of the result");
}

static void test_types(void)
{
    good("sdpa --q " FOLDER "/q16.npy --k " FOLDER "/k.npy --v " FOLDER "/v64.npy -o " FOLDER
         "/o.npy",
         "f16, f32 and f64 files");
    same_files("o", "dense", 0, "are rounded to f32");
    good("sdpa --dtype bf16 --q " FOLDER "/q16.npy --k " FOLDER "/k16.npy --v " FOLDER
         "/v64.npy -o " FOLDER "/o.npy",
         "uint16 files with --dtype bf16");
    same_files("o", "dense", 1e-5, "hold bf16");
    good("sdpa --dtype f16 " DENSE, "--dtype f16");
    same_files("o", "dense", 1e-5, "what f16 holds exactly is the same in f32");
    good("sdpa --kv-type f16 " DENSE, "--kv-type f16");
    same_files("o", "dense", 1e-5, "and in keys and values alone");
}

/* ALiBi by name and by file; a window and causality as masks. */
static void test_conditions(void)
{
    static const float slopes[] = {0.25f, 0.0625f, 0.015625f, 0.00390625f}; /* 2^(-8 h / 4) */
    static const float six[] = {0.25f, 0.0625f, 0.015625f, 0.00390625f, 0.5f, 0.125f};
    write_file("slopes", ATTEND_F32, ATTEND_SHAPE(4), slopes, sizeof slopes);
    good("sdpa --align bottom-right --alibi standard " DENSE, "--alibi standard");
    move_file("o", "standard");
    good("sdpa --align bottom-right --alibi " FOLDER "/slopes.npy " DENSE, "--alibi FILE");
    same_files("o", "standard", 0, "the standard slopes of 4 heads");

    write_file("slopes", ATTEND_F32, ATTEND_SHAPE(6), six, sizeof six);
    write_random("hq", ATTEND_F32, ATTEND_SHAPE(1, 6, 5, 8), 1);
    write_random("hk", ATTEND_F32, ATTEND_SHAPE(1, 2, 5, 8), 2);
    write_random("hv", ATTEND_F32, ATTEND_SHAPE(1, 2, 5, 8), 3);
    good("sdpa --alibi standard " ROWS(FOLDER "/h"), "rows and keys are as many: no --align");
    move_file("o", "standard");
    good("sdpa --alibi " FOLDER "/slopes.npy " ROWS(FOLDER "/h"), "six heads");
    same_files("o", "standard", 0, "the standard slopes of 6 heads");

    uint8_t mask[5][7];
    float bias[5][7];
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 7; j++) {
            mask[i][j] = j <= i + 2 && j >= i + 2 - 3;
            bias[i][j] = mask[i][j] ? 0 : -INFINITY;
        }
    write_file("mask", ATTEND_BOOL, ATTEND_SHAPE(5, 7), mask, sizeof mask);
    write_file("bias", ATTEND_F32, ATTEND_SHAPE(1, 1, 5, 7), bias, sizeof bias);
    good("sdpa --causal --window 3,-1 --align bottom-right " DENSE, "--causal and --window");
    move_file("o", "window");
    good("sdpa --mask " FOLDER "/mask.npy " DENSE, "--mask of bool");
    same_files("o", "window", 1e-6, "hides the same keys");
    good("sdpa --mask " FOLDER "/bias.npy " DENSE, "--mask of float");
    same_files("o", "window", 1e-6, "hides them, too");
    good("sdpa --mask-expr 'j <= i + skv - sq && j >= i + 2 - 3' " DENSE, "--mask-expr");
    same_files("o", "window", 1e-6, "hides them, too");
    good("sdpa --mask-expr 'm[i, j]' --let m=" FOLDER "/mask.npy " DENSE, "--let of bool");
    same_files("o", "window", 1e-6, "hides them, too");
    good("sdpa --score 'score + m[0, 0, i, j]' --let m=" FOLDER "/bias.npy " DENSE, "--score");
    same_files("o", "window", 1e-6, "hides them, too, where it is -inf");
    good("sdpa --mask " FOLDER "/mask.npy --causal --align top-left --softcap 2 --scale=0.3 " DENSE,
         "conditions may be given together");
}

/* Sequences of 2 and 3 rows, 3 and 4 keys, against the dense form of the second one. */
static void test_lengths(void)
{
    static const int32_t cq[] = {0, 2, 5}, ck[] = {0, 3, 7}, used[] = {7, 0};
    static const float zeros[2 * 4 * 5 * 6];
    write_file("cq", ATTEND_I32, ATTEND_SHAPE(3), cq, sizeof cq);
    write_file("ck", ATTEND_I32, ATTEND_SHAPE(3), ck, sizeof ck);
    write_file("used", ATTEND_I32, ATTEND_SHAPE(2), used, sizeof used);
    write_random("pq", ATTEND_F32, ATTEND_SHAPE(5, 2, 8), 1);
    write_random("pk", ATTEND_F32, ATTEND_SHAPE(7, 1, 8), 2);
    write_random("pv", ATTEND_F32, ATTEND_SHAPE(7, 1, 8), 3);
    good("sdpa --q-lens " FOLDER "/cq.npy --kv-lens " FOLDER
         "/ck.npy --causal --align bottom-right "
         "--lse " FOLDER "/lse.npy --weights " FOLDER "/w.npy " ROWS(FOLDER "/p"),
         "packed sequences");
    attend_array o = read_file("o"), lse = read_file("lse"), w = read_file("w");
    ok(same_shape(w.shape, ATTEND_SHAPE(2, 5, 7)), "weights are heads, rows of all, keys of all");
    attend_free(w.data);
    ok(same_shape(o.shape, ATTEND_SHAPE(5, 2, 8)), "O is total, heads, size");
    ok(same_shape(lse.shape, ATTEND_SHAPE(2, 5)), "LSE is heads, total");
    attend_free(o.data);
    attend_free(lse.data);

    good("sdpa --kv-used " FOLDER "/used.npy --lse " FOLDER "/lse.npy " DENSE, "--kv-used");
    o = read_file("o");
    lse = read_file("lse");
    const float *x = o.data, *l = lse.data;
    ok(x && memcmp(x + 4 * 5 * 6, zeros, sizeof zeros / 2) == 0, "no keys in use: O is 0");
    ok(l && isinf(l[4 * 5]) && l[4 * 5] < 0 && isfinite(l[0]), "and LSE is -inf");
    attend_free(o.data);
    attend_free(lse.data);
}

/* The keys of `dense` in pages of 4, in an order of their own. */
static void write_pool(const char *from, const char *to, int64_t size)
{
    static const int page_of[2][2] = {
        {2, 0},
        {3, 1}
    };
    float pool[4 * 2 * 4 * 8] = {0};
    attend_array a = read_file(from);
    for (int64_t b = 0; a.data && b < 2; b++)
        for (int64_t g = 0; g < 2; g++)
            for (int64_t j = 0; j < 7; j++)
                memcpy(pool + ((page_of[b][j / 4] * 2 + g) * 4 + j % 4) * size,
                       (float *)a.data + ((b * 2 + g) * 7 + j) * size, (size_t)size * sizeof *pool);
    write_file(to, ATTEND_F32, ATTEND_SHAPE(4, 2, 4, size), pool,
               4 * 2 * 4 * size * (int64_t)sizeof *pool);
    attend_free(a.data);
}

static void test_caches(void)
{
    static const int32_t table[] = {2, 0, 3, 1}, all[] = {7, 7};
    write_file("table", ATTEND_I32, ATTEND_SHAPE(2, 2), table, sizeof table);
    write_file("all", ATTEND_I32, ATTEND_SHAPE(2), all, sizeof all);
    write_pool("k", "poolk", 8);
    write_pool("v", "poolv", 6);
    good("sdpa --q " FOLDER "/q.npy --k " FOLDER "/poolk.npy --v " FOLDER "/poolv.npy -o " FOLDER
         "/o.npy --kv-used " FOLDER "/all.npy --block-size 4 --block-table " FOLDER "/table.npy",
         "paged keys and values");
    same_files("o", "dense", 1e-6, "are those of the pages");
    good("sdpa --precision tf32 " DENSE, "--precision tf32");
    same_files("o", "dense", 0.01, "may round"); /* products of some numbers near 1, by 2^-10 */
    good("sdpa --kv-type q8_0 " DENSE, "--kv-type q8_0");
    same_files("o", "dense", 0.02, "is near");
    good("sdpa --kv-type q4_0 " DENSE, "--kv-type q4_0");
    same_files("o", "dense", 0.2, "is not far");
    good("sdpa --kv-type fp8 " DENSE, "--kv-type fp8");
    same_files("o", "dense", 0.06, "is near");
    move_file("o", "fp8");
    transpose_file("fp8", "fp8-swapped", false);
    good("sdpa --kv-type fp8 --layout bshd " ROWS(FOLDER "/t"), "--kv-type fp8 with rows first");
    same_files("o", "fp8-swapped", 1e-6, "is the same");
}

static void test_empty(void)
{
    write_random("eq", ATTEND_F32, ATTEND_SHAPE(0, 2, 3, 8), 1);
    write_random("ek", ATTEND_F32, ATTEND_SHAPE(0, 2, 3, 8), 1);
    write_random("ev", ATTEND_F32, ATTEND_SHAPE(0, 2, 3, 8), 1);
    good("sdpa " ROWS(FOLDER "/e"), "an empty batch");
    attend_array o = read_file("o");
    ok(same_shape(o.shape, ATTEND_SHAPE(0, 2, 3, 8)), "gives an empty result");
    attend_free(o.data);
    write_random("eq", ATTEND_F32, ATTEND_SHAPE(1, 2, 3, 8), 1);
    write_random("ek", ATTEND_F32, ATTEND_SHAPE(1, 2, 0, 8), 1);
    write_random("ev", ATTEND_F32, ATTEND_SHAPE(1, 2, 0, 8), 1);
    good("sdpa " ROWS(FOLDER "/e"), "no keys");
    o = read_file("o");
    const float *x = o.data;
    ok(x && same_shape(o.shape, ATTEND_SHAPE(1, 2, 3, 8)) && x[0] == 0 && x[47] == 0, "give 0");
    attend_free(o.data);
}

static void test_verbs(void)
{
    good("--version", "--version");
    ok(strstr(out, attend_version()), "says which");
    good("--help", "--help");
    ok(strstr(out, "sdpa") && strstr(out, "devices"), "lists the verbs");
    good("sdpa --help", "sdpa --help");
    ok(strstr(out, "--kv-used N.npy"), "lists the flags");
    good("devices", "devices");
    ok(strstr(out, "ref") && strstr(out, "* "), "lists the reference, and marks what auto is");
    good("devices --json", "devices --json");
    ok(strncmp(out, "{\"name\": \"ref\", \"present\": true", 31) == 0, "one object a line");
    good("plan sdpa " DENSE, "plan sdpa");
    ok(strstr(out, "attention"), "shows the attention");
    good("plan attention:f16:b2h4g2q1k100d64:causal-br --device ref", "plan PROBLEM");
    ok(strstr(out, "attention") && strstr(out, "ref"), "shows its kernel");
    good("plan --json attention:f32:b2h4g2q1k100d64", "plan --json");
    ok(out[0] == '{', "is an object");
    good("plan sdpa --dot " DENSE, "plan --dot");
    ok(strstr(out, "digraph"), "is a graph");
    good("check attention:f32:b1h2g1q5k9d8:causal-br:lse", "check WORD");
    ok(strstr(out, "ok 1 - ref attention:f32") && !strstr(out, "not ok"), "checks each device");
}

/* ---- what it refuses ---- */

/* O = P V, of the weights that the program writes; other forms of them are those of part of it. */
static void test_weights(void)
{
#define W "sdpa --causal --align bottom-right --weights " FOLDER
    good(W "/w.npy " DENSE, "--weights");
    attend_array w = read_file("w"), v = read_file("v"), o = read_file("o");
    double worst = 0;
    bool shape = same_shape(w.shape, ATTEND_SHAPE(2, 4, 5, 7)) && v.data && o.data;
    for (int64_t n = 0; shape && n < 2 * 4 * 5 * 6; n++) {
        int64_t row = n / 6, group = row / 5 / 2;
        double sum = -(double)((float *)o.data)[n];
        for (int64_t j = 0; j < 7; j++)
            sum += (double)((float *)w.data)[row * 7 + j] *
                   (double)((float *)v.data)[(group * 7 + j) * 6 + n % 6];
        worst = fmax(worst, fabs(sum));
    }
    ok(shape && worst < 1e-6, "O is the weights times V (%.2g)", worst);
    attend_free(w.data), attend_free(v.data), attend_free(o.data);
    good(W "/wr.npy --weights-rows 0:5 " DENSE, "--weights-rows");
    same_files("wr", "w", 0, "all rows are all weights");
    good(W "/wp.npy --weights-pool 5,7 " DENSE, "--weights-pool");
    same_files("wp", "w", 0, "a cell for each pair is all weights");
    good(W "/wk.npy --weights-topk 7 " DENSE, "--weights-topk");
    attend_array key = read_file("wk.idx");
    ok(key.type == ATTEND_I32 && same_shape(key.shape, ATTEND_SHAPE(2, 4, 5, 7)),
       "W.idx.npy has keys");
    attend_free(key.data);
    good(W "/wc.npy --weights-columns --dropout 0.5 --seed 3 " DENSE, "--weights-columns");
#undef W
}

/* clang-format off */
static const struct refusal {
    const char *args;
    int status;
    const char *say; /* what the line on stderr begins with, or holds */
} refusals[] = {
    {"", 2, "usage: attend"},
    {"sdqa", 2, "attend: there is no verb sdqa; did you mean sdpa?"},
    {"xyzzy", 2, "attend: there is no verb xyzzy; attend --help"},
    {"sdpa " DENSE "--causel", 2, "attend sdpa: there is no flag --causel; did you mean --causal?"},
    {"sdpa " DENSE "--xyzzy", 2, "attend sdpa: there is no flag --xyzzy; attend sdpa --help"},
    {"sdpa " DENSE "--scale", 2, "attend sdpa: --scale wants X after it"},
    {"sdpa " DENSE "--causal=1", 2, "attend sdpa: --causal takes no value"},
    {"sdpa " DENSE "more", 2, "attend sdpa: what is \"more\"?"},
    {"sdpa --k a --v b -o c", 2, "attend sdpa: --q is missing"},
    {"sdpa --q a --k a --v b", 2, "attend sdpa: -o is missing"},
    {"sdpa " DENSE "--lse " FOLDER "/o.npy", 2, "-o and --lse are the same file"},
    {"sdpa " DENSE "--scale nan", 2, "attend sdpa: --scale: \"nan\" is not a finite number"},
    {"sdpa " DENSE "--scale 1x", 2, "--scale: \"1x\""},
    {"sdpa " DENSE "--scale ' 1'", 2, "--scale: \" 1\""},
    {"sdpa " DENSE "--softcap -1", 2, "--softcap: \"-1\""},
    {"sdpa " DENSE "--window 3", 2, "--window: \"3\" is not two numbers"},
    {"sdpa " DENSE "--window 3,-2", 2, "--window: \"3,-2\""},
    {"sdpa " DENSE "--window 3,99999999999999999999", 2, "--window: \"3,99999999999999999999\""},
    {"sdpa " DENSE "--threads 0", 2, "--threads: \"0\""},
    {"sdpa " DENSE "--dtype f64", 2, "--dtype: \"f64\" is not one of f32, f16, bf16"},
    {"sdpa " DENSE "--align left", 2, "--align: \"left\" is not one of top-left, bottom-right"},
    {"sdpa " DENSE "--q-lens a.npy", 2, "--q-lens and --kv-lens need each other"},
    {"sdpa " DENSE "--block-table a.npy", 2, "--block-table and --block-size need each other"},
    {"sdpa " DENSE "--block-table a.npy --block-size 4", 2, "--block-table needs --kv-used"},
    {"sdpa " DENSE "--weights-topk 3", 2, "--weights-topk needs --weights"},
    {"sdpa " DENSE "--weights w --weights-rows 3", 2, "--weights-rows: \"3\" is not I0:I1"},
    {"sdpa " DENSE "--weights w --weights-rows 3:2", 2, "--weights-rows: \"3:2\" is not I0:I1"},
    {"sdpa " DENSE "--weights w --weights-topk 3 --weights-pool 2,2", 2, "one of them"},
    {"sdpa " DENSE "--additive a,b", 2, "--additive: \"a,b\" is not three files"},
    {"sdpa " DENSE "--additive a,b,c,d", 2, "--additive: \"a,b,c,d\" is not three files"},
    {"sdpa " DENSE "--additive a,b,c --layout bshd", 2, "--additive takes tensors of batch, sequence"},
    {"plan devices", 2, "attend plan: devices runs nothing"},
    {"plan attention:f32:b1", 2, "attend plan: \"attention:f32:b1\": \"b1\" are not sizes"},
    {"devices more", 2, "attend devices: what is \"more\"?"},
    {"sdpa " DENSE "--let " FOLDER "/q.npy", 2, "--let: \"" FOLDER "/q.npy\" is not NAME=FILE.npy"},
    {"sdpa " DENSE "--dropout 1", 2, "--dropout: \"1\" is not a finite number from 0"},
    {"sdpa " DENSE "--precision f64", 2, "--precision: \"f64\" is not one of exact, tf32, int8, f16_p"},
    /* files */
    {"sdpa " ROWS(FOLDER "/missing/"), 1, "attend sdpa: " FOLDER "/missing/q.npy: "},
    {"sdpa --q " FOLDER "/stdout --k a --v b -o c", 1, "attend sdpa: " FOLDER "/stdout: "},
    {"sdpa --q " FOLDER " --k a --v b -o c", 1, "attend sdpa: " FOLDER ": "},
    {"sdpa --q " FOLDER "/q.npy --k " FOLDER "/k.npy --v " FOLDER "/v.npy -o " FOLDER "/no/o.npy",
     1, "attend sdpa: " FOLDER "/no/o.npy: "},
    {"sdpa --q " FOLDER "/q.npy --k " FOLDER "/k16.npy --v " FOLDER "/v.npy -o " FOLDER "/o.npy",
     1, "k16.npy: uint16 is read as bf16 only with --dtype bf16"},
    {"sdpa --q " FOLDER "/used.npy --k " FOLDER "/k.npy --v " FOLDER "/v.npy -o " FOLDER "/o.npy",
     1, "used.npy: the type is i32"},
    /* shapes */
    {"sdpa " ROWS(FOLDER "/f"), 1, "fq.npy: the shape is 2 x 5 x 32, want 4 axes"},
    {"sdpa " ROWS(FOLDER "/f") "--heads 5,2", 1, "the last axis of 2 x 5 x 32 cannot hold 5 heads"},
    {"sdpa " ROWS(FOLDER "/t"), 1, "tk.npy: 7 heads do not divide the 5 of "},
    {"sdpa --q " FOLDER "/q.npy --k " FOLDER "/v.npy --v " FOLDER "/v.npy -o " FOLDER "/o.npy",
     1, "v.npy: head size: 6 in shape 2 x 2 x 7 x 6, but 8 in 2 x 4 x 5 x 8 of"},
    {"sdpa --q " FOLDER "/q.npy --k " FOLDER "/hk.npy --v " FOLDER "/hv.npy -o " FOLDER "/o.npy",
     1, "hk.npy: batch: 1 in shape 1 x 2 x 5 x 8, but 2 in 2 x 4 x 5 x 8 of"},
    {"sdpa " DENSE "--mask " FOLDER "/wrong.npy",
     1, "wrong.npy: shape 4 x 7 does not broadcast to B,H,Sq,Skv = 2 x 4 x 5 x 7"},
    {"sdpa " DENSE "--mask " FOLDER "/used.npy", 1, "used.npy: the type is i32"},
    {"sdpa " DENSE "--sinks " FOLDER "/slopes.npy", 1, "slopes.npy: the shape is 6, want 4"},
    {"sdpa " DENSE "--kv-used " FOLDER "/cq.npy", 1, "cq.npy: the shape is 3, want 2"},
    {"sdpa " DENSE "--kv-used " FOLDER "/slopes.npy", 1, "slopes.npy: the type is f32, want int32"},
    {"sdpa " DENSE "--block-size 4 --kv-used " FOLDER "/all.npy --block-table " FOLDER "/table.npy",
     1, "k.npy: blocks of 7 keys in shape 2 x 2 x 7 x 8, but --block-size is 4"},
    /* values */
    {"sdpa " DENSE "--causal", 1, "align"},
    {"sdpa " DENSE "--kv-used " FOLDER "/long.npy", 1, "8"},
    {"sdpa " ROWS(FOLDER "/p") "--q-lens " FOLDER "/ck.npy --kv-lens " FOLDER "/ck.npy", 1, "7"},
    {"sdpa " DENSE "--alibi " FOLDER "/nan.npy --align top-left", 1, "alibi[1] is nan"},
    {"sdpa " DENSE "--sinks " FOLDER "/nan.npy", 1, "sinks[1] is nan"},
    {"sdpa " ROWS(FOLDER "/p") "--q-lens " FOLDER "/falls.npy --kv-lens " FOLDER "/ck.npy",
     1, "q_lens[2] is 1, below the 2 before it"},
    {"sdpa " ROWS(FOLDER "/p") "--q-lens " FOLDER "/cq.npy --kv-lens " FOLDER "/falls.npy", 1, "kv_lens[2] is 1"},
    {"sdpa " DENSE "--block-size 7 --kv-used " FOLDER "/all.npy --block-table " FOLDER "/far.npy",
     1, "block_table[1, 0] is 2, outside the pool of 2 pages"},
    {"sdpa " DENSE "--device abacus", 1, "abacus"},
    /* expressions */
    {"sdpa " DENSE "--score 'score + x'", 1, "or tensor given by name: score + ^x"},
    {"sdpa " DENSE "--mask-expr 'j <= i &&'", 1, "ends where a value is wanted: j <= i &&^"},
    {"sdpa " DENSE "--mask-expr 'x[i, j]' --let x=" FOLDER "/slopes.npy", 1, "'x' has 1 axis but 2 indices"},
    {"sdpa " DENSE "--let h=" FOLDER "/slopes.npy --score h", 1, "the name 'h' is taken"},
    {"sdpa " DENSE "--let x=" FOLDER "/missing.npy", 1, "missing.npy"},
};
/* clang-format on */

static int lines(const char *text)
{
    int n = 0;
    for (; *text; text++)
        n += *text == '\n';
    return n;
}

static void test_refusals(void)
{
    static const int32_t too_long[] = {8, 1};
    write_random("wrong", ATTEND_F32, ATTEND_SHAPE(4, 7), 1);
    write_file("long", ATTEND_I32, ATTEND_SHAPE(2), too_long, sizeof too_long);
    static const int32_t falls[] = {0, 2, 1}, far[] = {0, 2};
    static const float not_numbers[] = {0.5f, NAN, 0.5f, 0.5f};
    write_file("falls", ATTEND_I32, ATTEND_SHAPE(3), falls, sizeof falls);
    write_file("far", ATTEND_I32, ATTEND_SHAPE(2, 1), far, sizeof far);
    write_file("nan", ATTEND_F32, ATTEND_SHAPE(4), not_numbers, sizeof not_numbers);
    for (size_t i = 0; i < NELEM(refusals); i++) {
        const struct refusal *r = &refusals[i];
        remove(FOLDER "/o.npy");
        int status = run(r->args);
        bool one = lines(err) == 1 || i == 0; /* without a verb: all of them */
        if (!ok(status == r->status && strstr(err, r->say) && one && !file_exists(FOLDER "/o.npy"),
                "refused: attend %s", r->args))
            diag("exit %d, want %d: %s", status, r->status, err);
    }
    char command[300];
    snprintf(command, sizeof command, "'%s' devices >/dev/full 2>&1", attend);
    ok(!file_exists("/dev/full") || system(command) != 0, "a full disk is a failure");
}

int main(void)
{
    attend = at_env(AT_ENV_ATTEND);
    if (!attend)
        skip_all("ATTEND_ATTEND does not name the program");
    char why[320];
    if (at_os_make_dir(FOLDER, why, sizeof why) < 0)
        bail("%s", why);
    write_inputs();
    test_layouts();
    test_types();
    test_conditions();
    test_weights();
    test_lengths();
    test_caches();
    test_empty();
    test_verbs();
    test_refusals();
    if (system("rm -r " FOLDER) != 0)
        diag("cannot remove " FOLDER);
    return done_testing();
}
