/* SPDX-License-Identifier: MIT */
/* An encoder and a decoder that learn to rewrite dates, "3 May 2021" to "2021-05-03", and show
 * where they look.
 *
 *     dates FOLDER [--steps N] [--additive] [--device NAME]
 *
 * The encoder is a layer of self-attention over the characters; the decoder reads what it wrote so
 * far (its own causal attention), and looks at the encoder: by multi-head attention, or by additive
 * attention (Bahdanau et al. 2015).  At the end: how many of 1000 dates that were never seen come
 * out right, and in FOLDER/alignment.npy the weights of the decoder's look at one date, of which
 * FOLDER/date.txt has the text; alignment.py draws them. */
#include <math.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <time.h>

#include "train.h"

enum { IN = 24, OUT = 11, WIDTH = 64, HEADS = 4, BATCH = 64, BYTES = 128, TESTS = 1024 };

static bool additive;

/* Uniform with variance 1 / columns, or 1. */
static void fill(struct weight *w, float deviation, uint64_t state)
{
    (void)deviation;
    for (int64_t i = 0; i < count(w); i++)
        w->data[0][i] =
            w->shape.rank == 1
                ? 1
                : (float)((2 * uniform(&state) - 1) * sqrt(3.0 / (double)w->shape.dim[1]));
}

static attend_tensor weight(attend_graph *g, int *next, attend_shape shape)
{
    char name[16];
    snprintf(name, sizeof name, "w%d", *next + 1);
    return next_weight(g, next, name, shape, 0, fill)->state[0];
}

/* ---- the model ---- */

static attend_tensor normed(attend_graph *g, int *next, attend_tensor x)
{
    return attend_graph_layer_norm(g, x, weight(g, next, ATTEND_SHAPE(WIDTH)), attend_none(),
                                   1e-5f);
}

static attend_tensor heads(attend_graph *g, int *next, attend_tensor x, attend_tensor context,
                           const attend_attention_opts *a)
{
    attend_multi_head_opts o;
    attend_multi_head_opts_init(&o);
    o.heads = HEADS;
    o.wq = weight(g, next, ATTEND_SHAPE(WIDTH, WIDTH));
    o.wk = weight(g, next, ATTEND_SHAPE(WIDTH, WIDTH));
    o.wv = weight(g, next, ATTEND_SHAPE(WIDTH, WIDTH));
    o.wo = weight(g, next, ATTEND_SHAPE(WIDTH, WIDTH));
    o.attention = a;
    return attend_graph_multi_head(g, x, context, &o, NULL);
}

static attend_tensor feed(attend_graph *g, int *next, attend_tensor x)
{
    attend_tensor y = attend_graph_matmul_nt(g, normed(g, next, x),
                                             weight(g, next, ATTEND_SHAPE(4 * WIDTH, WIDTH)));
    y = attend_graph_matmul_nt(g, attend_graph_gelu_tanh(g, y),
                               weight(g, next, ATTEND_SHAPE(WIDTH, 4 * WIDTH)));
    return attend_graph_add(g, x, y);
}

static attend_tensor embedded(attend_graph *g, int *next, attend_tensor text, int length)
{
    attend_tensor x = attend_graph_gather(g, weight(g, next, ATTEND_SHAPE(BYTES, WIDTH)), text);
    return attend_graph_add(g, x, weight(g, next, ATTEND_SHAPE(length, WIDTH)));
}

/* (B, S, W) as (B, H, S, W / H) */
static attend_tensor split(attend_graph *g, attend_tensor x)
{
    attend_shape s = attend_tensor_shape(x);
    x = attend_graph_reshape(g, x, ATTEND_SHAPE(s.dim[0], s.dim[1], HEADS, WIDTH / HEADS));
    return attend_graph_permute(g, x, (int[]){0, 2, 1, 3});
}

/* The decoder's look at the encoder; weights: where it looks, (B, heads, OUT, IN), if asked for. */
static attend_tensor look(attend_graph *g, int *next, attend_tensor x, attend_tensor memory,
                          attend_tensor used, attend_tensor *where)
{
    attend_attention_opts a;
    attend_tensor q, k, o;
    attend_attention_opts_init(&a);
    a.mask.kv_used = used;
    attend_tensor wq = weight(g, next, ATTEND_SHAPE(WIDTH, WIDTH)),
                  wk = weight(g, next, ATTEND_SHAPE(WIDTH, WIDTH));
    attend_tensor wv = weight(g, next, ATTEND_SHAPE(WIDTH, WIDTH));
    attend_shape s = attend_tensor_shape(x);
    q = attend_graph_matmul_nt(g, x, wq);
    k = attend_graph_matmul_nt(g, memory, wk);
    attend_tensor v = attend_graph_matmul_nt(g, memory, wv);
    if (additive) {
        a.additive =
            attend_graph_reshape(g, weight(g, next, ATTEND_SHAPE(1, WIDTH)), ATTEND_SHAPE(WIDTH));
        q = attend_graph_reshape(g, q, ATTEND_SHAPE(s.dim[0], 1, OUT, WIDTH));
        k = attend_graph_reshape(g, k, ATTEND_SHAPE(s.dim[0], 1, IN, WIDTH));
        v = attend_graph_reshape(g, v, ATTEND_SHAPE(s.dim[0], 1, IN, WIDTH));
        o = attend_graph_attention(g, q, k, v, &a, NULL);
    } else {
        q = split(g, q);
        k = split(g, k);
        o = attend_graph_attention(g, q, k, split(g, v), &a, NULL);
        o = attend_graph_permute(g, o, (int[]){0, 2, 1, 3});
    }
    if (where)
        *where = attend_graph_attention_weights(g, q, k, attend_none(), &a, NULL, NULL);
    o = attend_graph_reshape(g, o, ATTEND_SHAPE(s.dim[0], OUT, WIDTH));
    return attend_graph_matmul_nt(g, o, weight(g, next, ATTEND_SHAPE(WIDTH, WIDTH)));
}

static attend_tensor model(attend_graph *g, int64_t batch, attend_tensor *where)
{
    attend_attention_opts self, causal;
    int next = 0;
    attend_tensor in = attend_graph_input(g, "in", ATTEND_I32, ATTEND_SHAPE(batch, IN));
    attend_tensor used = attend_graph_input(g, "used", ATTEND_I32, ATTEND_SHAPE(batch));
    attend_tensor out = attend_graph_input(g, "out", ATTEND_I32, ATTEND_SHAPE(batch, OUT));
    attend_attention_opts_init(&self);
    attend_attention_opts_init(&causal);
    self.mask.kv_used = used;
    causal.mask.causal = 1;
    causal.mask.align = ATTEND_TOP_LEFT;
    attend_tensor m = embedded(g, &next, in, IN);
    m = feed(g, &next,
             attend_graph_add(g, m, heads(g, &next, normed(g, &next, m), attend_none(), &self)));
    m = normed(g, &next, m);
    attend_tensor x = embedded(g, &next, out, OUT);
    x = attend_graph_add(g, x, heads(g, &next, normed(g, &next, x), attend_none(), &causal));
    x = feed(g, &next, attend_graph_add(g, x, look(g, &next, normed(g, &next, x), m, used, where)));
    return attend_graph_matmul_nt(g, normed(g, &next, x),
                                  weight(g, &next, ATTEND_SHAPE(BYTES, WIDTH)));
}

/* ---- dates ---- */

static const char *const months[] = {"January",   "February", "March",    "April",
                                     "May",       "June",     "July",     "August",
                                     "September", "October",  "November", "December"};

/* Date number n, of days from 1900 to 2099, in one of six forms; every eighth day is kept for the
 * test. */
static void write_date(uint64_t *state, bool test, char *from, char *to)
{
    int year, month, day, form = (int)(uniform(state) * 6);
    do {
        year = 1900 + (int)(uniform(state) * 200);
        month = (int)(uniform(state) * 12);
        day = 1 + (int)(uniform(state) * 28);
    } while ((mix((uint64_t)(year * 400 + month * 31 + day)) % 8 == 0) != test);
    const char *name = months[month];
    unsigned d = (unsigned)day % 100, m = (unsigned)(month + 1) % 100, y = (unsigned)year % 10000;
    if (form == 0)
        snprintf(from, IN + 1, "%u %s %u", d, name, y);
    else if (form == 1)
        snprintf(from, IN + 1, "%s %u, %u", name, d, y);
    else if (form == 2)
        snprintf(from, IN + 1, "%u %.3s %u", d, name, y);
    else if (form == 3)
        snprintf(from, IN + 1, "%02u.%02u.%u", d, m, y);
    else if (form == 4)
        snprintf(from, IN + 1, "%02u/%02u/%u", m, d, y);
    else
        snprintf(from, IN + 1, "%.3s %u %u", name, d, y);
    snprintf(to, OUT, "%u-%02u-%02u", y, m, d);
}

static int32_t in[TESTS * IN], used[TESTS], out[TESTS * OUT], want[TESTS * OUT];
static char text[IN + 1]; /* of the last date drawn */

/* Teacher forcing: the decoder reads the answer, one character late. */
static void draw(uint64_t *state, int n, bool test)
{
    char to[OUT + 1];
    memset(in, 0, sizeof in);
    for (int b = 0; b < n; b++) {
        write_date(state, test, text, to);
        used[b] = (int32_t)strlen(text);
        for (int i = 0; text[i]; i++)
            in[b * IN + i] = text[i];
        for (int i = 0; i < OUT; i++) {
            want[b * OUT + i] = i < OUT - 1 ? to[i] : 1;
            out[b * OUT + i] = i ? to[i - 1] : 2;
        }
    }
}

/* ---- running ---- */

/* With what every graph here reads. */
static struct run ready(attend_graph *g, int64_t batch, const attend_binding *extra, int nextra)
{
    attend_binding all[8] = {binding("in", in, (size_t)batch * IN * sizeof *in),
                             binding("used", used, (size_t)batch * sizeof *used),
                             binding("out", out, (size_t)batch * OUT * sizeof *out)};
    for (int i = 0; i < nextra; i++)
        all[3 + i] = extra[i];
    return compile(g, all, 3 + nextra);
}

/* used changed, so it is bound again. */
static void run(struct run *r)
{
    if (attend_bind(r->exec, NULL, 0) < 0 || attend_run(r->exec) < 0)
        die(attend_exec_error(r->exec));
}

static void train(attend_ctx *ctx, int steps)
{
    float rate, step, loss;
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor logits = model(g, BATCH, NULL);
    attend_tensor targets = attend_graph_input(g, "want", ATTEND_I32, ATTEND_SHAPE(BATCH, OUT));
    attend_tensor r = attend_graph_input(g, "rate", ATTEND_F32, (attend_shape){0, {0}});
    attend_tensor t = attend_graph_input(g, "step", ATTEND_F32, (attend_shape){0, {0}});
    attend_tensor l = attend_graph_cross_entropy(g, logits, targets);
    learn(g, l, r, t, 0.999f, 0);
    attend_graph_output(g, "loss", l);
    const attend_binding extra[] = {
        binding("want", want, BATCH * OUT * 4),
        binding("rate", &rate, sizeof rate),
        binding("step", &step, sizeof step),
        binding("loss", &loss, sizeof loss),
    };
    struct run x = ready(g, BATCH, extra, 4);
    uint64_t state = 1;
    double begin = (double)clock(), mean = 0;
    for (int s = 1; s <= steps; s++) {
        draw(&state, BATCH, false);
        step = (float)s;
        rate = (float)(3e-3 * fmin((double)s / 100, 1) *
                       (0.505 + 0.495 * cos(3.14159265358979 * s / steps)));
        run(&x);
        mean += ((double)loss - mean) / fmin(s, 50);
        if (s % 50 == 0 || s == steps)
            printf("step %d of %d  loss %.4f  %.0f s of processor time\n", s, steps, mean,
                   ((double)clock() - begin) / CLOCKS_PER_SEC);
        fflush(stdout);
    }
    end(&x);
}

/* ---- the test: the decoder reads what it wrote itself ---- */

static float logits[TESTS * OUT * BYTES];

static void test(attend_ctx *ctx, const char *folder)
{
    char path[1000], err[320];
    int64_t rows = additive ? 1 : HEADS, cells = rows * OUT * IN;
    float *where = calloc((size_t)(TESTS * cells), sizeof *where);
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor w, l = model(g, TESTS, &w);
    attend_graph_output(g, "logits", l);
    attend_graph_output(g, "where", w);
    const attend_binding extra[] = {
        binding("logits", logits, sizeof logits),
        binding("where", where, (size_t)(TESTS * cells) * sizeof *where),
    };
    struct run x = ready(g, TESTS, extra, 2);
    uint64_t state = 99;
    draw(&state, TESTS, true);
    for (int i = 0; i < OUT; i++) {
        run(&x);
        for (int b = 0; b < TESTS && i + 1 < OUT; b++) {
            const float *row = logits + (b * OUT + i) * BYTES;
            int best = 0;
            for (int c = 1; c < BYTES; c++)
                best = row[c] > row[best] ? c : best;
            out[b * OUT + i + 1] = best;
        }
    }
    int right = 0;
    for (int b = 0; b < TESTS; b++)
        right += !memcmp(out + b * OUT + 1, want + b * OUT, (OUT - 1) * sizeof *out);
    printf("%s attention: %d of %d unseen dates right, %.1f %%\n",
           additive ? "additive" : "multi-head", right, TESTS, 100.0 * right / TESTS);
    const attend_array a = {ATTEND_F32, ATTEND_SHAPE(rows, OUT, IN), where + (TESTS - 1) * cells,
                            cells * 4};
    snprintf(path, sizeof path, "%s/alignment.npy", folder);
    if (attend_npy_write(path, &a, err, sizeof err) < 0)
        die(err);
    snprintf(path, sizeof path, "%s/date.txt", folder);
    FILE *f = fopen(path, "w");
    if (!f)
        die("cannot write date.txt");
    fprintf(f, "%s\n", text);
    for (int i = 0; i < OUT - 1; i++)
        fputc(out[(TESTS - 1) * OUT + i + 1], f);
    fputc('\n', f);
    fclose(f);
    end(&x);
    free(where);
}

int main(int argc, char **argv)
{
    attend_ctx *ctx;
    int steps = 1500;
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], "--additive") == 0)
            additive = true;
        else if (strcmp(argv[i], "--steps") == 0 && i + 1 < argc)
            steps = atoi(argv[++i]);
        else if (strcmp(argv[i], "--device") == 0 && i + 1 < argc)
            device = argv[++i];
    if (argc < 2) {
        fprintf(stderr, "usage: dates FOLDER [--steps N] [--additive] [--device NAME]\n");
        return 2;
    }
    mkdir(argv[1], 0777); /* or it is there */
    if (attend_ctx_new(NULL, &ctx) < 0)
        return 1;
    train(ctx, steps);
    test(ctx, argv[1]);
    attend_ctx_free(ctx);
    return 0;
}
