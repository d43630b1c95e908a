/* SPDX-License-Identifier: MIT */
/* A tiny BERT model against the same written down in doubles; embeddings, maps, the program. */
#include "gen_bert.h"
#include "models.h"
#include "program.h"
#include "tap.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOLDER "835-bert.tmp"
enum {
    W = GEN_BERT_WIDTH,
    H = GEN_BERT_HEADS,
    D = W / H,
    HIDDEN = GEN_BERT_HIDDEN,
    L = GEN_BERT_LAYERS,
    MOST = GEN_BERT_LIMIT
};

/* All of this model's values are below 8, and f32 rounds each sum of at most 20 of them by 20 units
 * of 2^-21; norms pass errors on at about 1, through 4 of them, and 2 products each. */
#define BOUND 2e-4

static char err[1400];

/* ---- written down ---- */

struct written {
    double hidden[MOST][W];
    double map[L][H][MOST][MOST];
};

static double weight_at(int layer, const char *name, const char *what, int64_t i)
{
    char full[120];
    if (layer < 0)
        snprintf(full, sizeof full, "embeddings.%s.%s", name, what);
    else
        snprintf(full, sizeof full, "encoder.layer.%d.%s.%s", layer, name, what);
    return (double)gen_bert_weight(full, i);
}

static void linear(int layer, const char *name, int in, int out, const double *x, double *y)
{
    for (int o = 0; o < out; o++) {
        y[o] = weight_at(layer, name, "bias", o);
        for (int i = 0; i < in; i++)
            y[o] += x[i] * weight_at(layer, name, "weight", (int64_t)o * in + i);
    }
}

static void norm(int layer, const char *name, double *x)
{
    double mean = 0, square = 0;
    for (int d = 0; d < W; d++)
        mean += x[d] / W;
    for (int d = 0; d < W; d++)
        square += (x[d] - mean) * (x[d] - mean) / W;
    for (int d = 0; d < W; d++)
        x[d] = (x[d] - mean) / sqrt(square + 1e-12) * weight_at(layer, name, "weight", d) +
               weight_at(layer, name, "bias", d);
}

static void attend_to(struct written *w, int layer, int n, double (*q)[W], double (*k)[W],
                      double (*v)[W], double (*o)[W])
{
    for (int h = 0; h < H; h++)
        for (int i = 0; i < n; i++) {
            double sum = 0, *p = w->map[layer][h][i];
            for (int j = 0; j < n; j++) {
                double s = 0;
                for (int d = 0; d < D; d++)
                    s += q[i][h * D + d] * k[j][h * D + d];
                sum += p[j] = exp(s / sqrt(D));
            }
            for (int d = 0; d < D; d++)
                o[i][h * D + d] = 0;
            for (int j = 0; j < n; j++) {
                p[j] /= sum;
                for (int d = 0; d < D; d++)
                    o[i][h * D + d] += p[j] * v[j][h * D + d];
            }
        }
}

static void layer(struct written *w, int i, int n)
{
    double q[MOST][W], k[MOST][W], v[MOST][W], o[MOST][W], y[W], wide[HIDDEN];
    for (int t = 0; t < n; t++) {
        linear(i, "attention.self.query", W, W, w->hidden[t], q[t]);
        linear(i, "attention.self.key", W, W, w->hidden[t], k[t]);
        linear(i, "attention.self.value", W, W, w->hidden[t], v[t]);
    }
    attend_to(w, i, n, q, k, v, o);
    for (int t = 0; t < n; t++) {
        double *x = w->hidden[t];
        linear(i, "attention.output.dense", W, W, o[t], y);
        for (int d = 0; d < W; d++)
            x[d] += y[d];
        norm(i, "attention.output.LayerNorm", x);
        linear(i, "intermediate.dense", W, HIDDEN, x, wide);
        for (int d = 0; d < HIDDEN; d++)
            wide[d] *= 0.5 * erfc(-wide[d] / sqrt(2));
        linear(i, "output.dense", HIDDEN, W, wide, y);
        for (int d = 0; d < W; d++)
            x[d] += y[d];
        norm(i, "output.LayerNorm", x);
    }
}

static void write_down(struct written *w, const int32_t *token, int n)
{
    for (int t = 0; t < n; t++) {
        for (int d = 0; d < W; d++)
            w->hidden[t][d] = weight_at(-1, "word_embeddings", "weight", token[t] * W + d) +
                              weight_at(-1, "position_embeddings", "weight", t * W + d) +
                              weight_at(-1, "token_type_embeddings", "weight", d);
        norm(-1, "LayerNorm", w->hidden[t]);
    }
    for (int i = 0; i < L; i++)
        layer(w, i, n);
}

/* ---- against it ---- */

static attend_bert *open_model(attend_ctx *ctx, const char *device)
{
    attend_bert *m;
    attend_bert_opts opts;
    attend_bert_opts_init(&opts);
    opts.device = device;
    opts.batch = 16;
    int status = attend_bert_open(ctx, FOLDER, &opts, &m, err, sizeof err);
    if (status == ATTEND_EUNSUPPORTED)
        skip_all("%s", err);
    if (status < 0)
        bail("%s", err);
    return m;
}

static double farthest(const float *got, const double *want, int n)
{
    double most = 0;
    for (int i = 0; i < n; i++)
        most = fmax(most, fabs((double)got[i] - want[i]));
    return most;
}

static void test_run(attend_bert *m, const char *device)
{
    static const int32_t token[] = {2, 5, 6, 7, 3, 2, 3, 2, 10, 11, 12, 9, 8, 3},
                         start[] = {0, 5, 7, 14};
    static struct written w;
    float hidden[14 * W];
    is_int(attend_bert_run(m, token, start, 3, hidden, err, sizeof err), 0, "%s: packed", device);
    for (int i = 0; i < 3; i++) {
        int n = start[i + 1] - start[i];
        write_down(&w, token + start[i], n);
        is_float(farthest(hidden + start[i] * W, w.hidden[0], n * W), 0, BOUND,
                 "%s: sequence %d of %d tokens", device, i, n);
    }
    static const struct {
        int32_t start[3];
        int status;
        const char *sentence;
    } bad[] = {
        {{0, 11, 12}, ATTEND_ELIMIT, "sequence 0 has 11 tokens; 1 to 10 are allowed"},
        {{0, 0, 2},   ATTEND_ELIMIT, "sequence 0 has 0 tokens; 1 to 10 are allowed" },
        {{0, 9, 17},  ATTEND_ELIMIT, "17 tokens in a batch of 16"                   },
        {{1, 2, 3},   ATTEND_EINVAL, "2 sequences, the first at 1"                  },
    };
    for (size_t i = 0; i < NELEM(bad); i++) {
        is_int(attend_bert_run(m, token, bad[i].start, 2, hidden, err, sizeof err), bad[i].status,
               "%s: sequences that are wrong", device);
        is_str(err, bad[i].sentence, "are refused");
    }
}

static void test_maps(attend_bert *m, const char *device)
{
    enum { N = 7 };
    static const int32_t token[] = {2, 5, 6, 7, 9, 8, 3};
    static struct written w;
    static double want[L * H * N * N], cells[L * H * 2 * 3];
    attend_array maps;
    attend_weights_opts kept;
    attend_weights_opts_init(&kept);
    write_down(&w, token, N);
    for (int p = 0; p < L * H; p++)
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++)
                want[(p * N + i) * N + j] = w.map[p / H][p % H][i][j];
    is_int(attend_bert_maps(m, token, N, &kept, &maps, err, sizeof err), 0, "%s: maps", device);
    is_float(farthest(maps.data, want, L * H * N * N), 0, BOUND, "%s: are the weights", device);
    ok(maps.shape.rank == 4 && maps.shape.dim[0] == L && maps.shape.dim[1] == H &&
           maps.shape.dim[3] == N,
       "of all layers and heads");
    attend_free(maps.data);

    /* Rows 0 to 2 and 3 to 6; keys 0 to 1, 2 to 3, 4 to 6. */
    static const int row[] = {0, 3, 7}, col[] = {0, 2, 4, 7};
    for (int p = 0; p < L * H; p++)
        for (int c = 0; c < 6; c++) {
            double sum = 0;
            int r = c / 3, k = c % 3;
            for (int i = row[r]; i < row[r + 1]; i++)
                for (int j = col[k]; j < col[k + 1]; j++)
                    sum += want[(p * N + i) * N + j] / (row[r + 1] - row[r]);
            cells[p * 6 + c] = sum;
        }
    kept.mode = ATTEND_WEIGHTS_POOL;
    kept.rows = 2;
    kept.cols = 3;
    is_int(attend_bert_maps(m, token, N, &kept, &maps, err, sizeof err), 0, "%s: pooled", device);
    is_float(farthest(maps.data, cells, L * H * 6), 0, BOUND, "%s: are their sums", device);
    attend_free(maps.data);
    kept.rows = N + 1;
    is_int(attend_bert_maps(m, token, N, &kept, &maps, err, sizeof err), ATTEND_EINVAL, "too many");
    is_str(err, "maps of 8 x 3 cells, of 7 tokens", "is said");
    kept.mode = ATTEND_WEIGHTS_TOPK;
    is_int(attend_bert_maps(m, token, N, &kept, &maps, err, sizeof err), ATTEND_EINVAL,
           "no others");
}

/* The texts are in such an order that batches mix them; the last is cut to the limit. */
static void test_embed(attend_bert *m, const char *device)
{
    static const char *const text[] = {"hello", "",      "Hello, world!",
                                       "abc",   "hello", "a a a a a a a a a a a a a"};
    /* clang-format off */
    static const int32_t token[][MOST] = {
        {2, 5, 3},       {2, 3},    {2, 5, 8, 6, 7, 9, 3},
        {2, 10, 11, 12, 3}, {2, 5, 3}, {2, 10, 10, 10, 10, 10, 10, 10, 10, 3},
    };
    /* clang-format on */
    static const int length[] = {3, 2, 7, 5, 3, 10};
    static struct written w;
    attend_str texts[6];
    float out[6][W];
    for (int i = 0; i < 6; i++)
        texts[i] = (attend_str){text[i], strlen(text[i])};
    is_int(attend_bert_embed(m, texts, 6, out[0], err, sizeof err), 0, "%s: embed", device);
    for (int i = 0; i < 6; i++) {
        double mean[W] = {0}, square = 0;
        write_down(&w, token[i], length[i]);
        for (int d = 0; d < W; d++) {
            for (int t = 0; t < length[i]; t++)
                mean[d] += w.hidden[t][d] / length[i];
            square += mean[d] * mean[d];
        }
        for (int d = 0; d < W; d++)
            mean[d] /= sqrt(square);
        is_float(farthest(out[i], mean, W), 0, BOUND, "%s: \"%s\"", device, text[i]);
    }
    is_int(attend_bert_embed(m, texts, 0, out[0], err, sizeof err), 0, "no text is fine");
}

static void test_refusals(attend_ctx *ctx)
{
    /* clang-format off */
    static const struct {
        const char *file, *text;
        int status;
        const char *sentence;
    } bad[] = {
        {"config.json",               "{",                               ATTEND_EFORMAT,
         "/config.json: line 1: string or '}' expected near end of file"},
        {"config.json",               "[]",                              ATTEND_EFORMAT,
         "/config.json: this is no JSON object"},
        {"config.json",               "{\"model_type\": \"gpt2\"}",      ATTEND_EUNSUPPORTED,
         "/config.json: 'model_type' is 'gpt2', which is not supported; 'bert' is"},
        {"config.json",               "{}",                              ATTEND_EFORMAT,
         "/config.json: 'num_hidden_layers' is missing"},
        {"config.json",               "{\"num_hidden_layers\": 1.5}",    ATTEND_EFORMAT,
         "/config.json: 'num_hidden_layers' is no whole number"},
        {"config.json",               "{\"num_hidden_layers\": 0}",      ATTEND_EFORMAT,
         "/config.json: 'num_hidden_layers' is 0, want 1 to 4096"},
        {"sentence_bert_config.json", "{\"max_seq_length\": 17}",        ATTEND_EFORMAT,
         "/sentence_bert_config.json: 'max_seq_length' is 17, want 2 to 16"},
        {"vocab.txt",                 "x\n",                             ATTEND_EFORMAT,
         "/vocab.txt: the vocabulary has no [CLS]"},
        {"model.safetensors",         "x",                               ATTEND_EFORMAT,
         "/model.safetensors: this is no safetensors file: it has 1 bytes"},
    };
    /* clang-format on */
    attend_bert *m;
    for (size_t i = 0; i < NELEM(bad); i++) {
        gen_bert_write(FOLDER, NULL);
        gen_write_file(FOLDER, bad[i].file, bad[i].text, strlen(bad[i].text));
        is_int(attend_bert_open(ctx, FOLDER, NULL, &m, err, sizeof err), bad[i].status, "%s: %s",
               bad[i].file, bad[i].text);
        is_str(err + strlen(FOLDER), bad[i].sentence, "with this sentence");
    }
    gen_bert_write(FOLDER, "encoder.layer.1.output.dense.bias");
    is_int(attend_bert_open(ctx, FOLDER, NULL, &m, err, sizeof err), ATTEND_EFORMAT,
           "a tensor less");
    is_str(err, FOLDER "/model.safetensors: tensor 'encoder.layer.1.output.dense.bias' is missing",
           "is named");
    gen_bert_write(FOLDER, NULL);
    is_int(attend_bert_open(ctx, "no such folder", NULL, &m, err, sizeof err), ATTEND_EIO,
           "no folder");
}

static void test_program(void)
{
    attend_array a = {0};
    gen_write_file(FOLDER, "text", "hello\n\nHello", 12);
    is_int(program_run("embed -m . text -o e.npy --quiet"), 0, "a file of sentences");
    is_str(program_err, "", "quietly");
    if (attend_npy_read(FOLDER "/e.npy", &a, err, sizeof err) < 0)
        bail("%s", err);
    const float *e = a.data;
    ok(a.shape.rank == 2 && a.shape.dim[0] == 3 && a.shape.dim[1] == W, "three rows");
    is_mem(e, e + 2 * W, W * sizeof *e, "case does not matter");
    attend_free(a.data);
    is_int(program_run("embed -m . < text"), 0, "JSON lines, of the standard input");
    static const char first[] = "{\"text\": \"hello\", \"ids\": [2, 5, 3], \"embedding\": [";
    program_out[strlen(first)] = 0;
    is_str(program_out, first, "begin like this");
    is_int(program_run("embed -m . text --nearest"), 0, "the nearest");
    ok(strncmp(program_out, "1.000  hello  ~  Hello\n", 23) == 0, "are the same");
    is_int(program_run("plan embed -m ."), 0, "it has a plan");
    ok(strstr(program_out, "attention") != NULL, "with attention in it");
    program_run("embed");
    program_said(2, "attend embed: -m is missing: which folder has the model? ./quickstart "
                    "--embeddings fetches one");
    program_run("embed -m . none");
    program_said(1, "attend embed: none: it cannot be opened");
    program_run("embed -m x text");
    program_said(1, "attend embed: x: there is no such folder; a sentence model is a folder with "
                    "config.json, model.safetensors and vocab.txt");
}

int main(void)
{
    attend_ctx *ctx;
    program_init(FOLDER);
    gen_bert_write(FOLDER, NULL);
    if (attend_ctx_new(NULL, &ctx) < 0)
        bail("no context");
    static const char *const devices[] = {"ref", "simd"};
    for (size_t i = 0; i < NELEM(devices); i++) {
        attend_bert *m = open_model(ctx, devices[i]);
        test_run(m, devices[i]);
        test_maps(m, devices[i]);
        test_embed(m, devices[i]);
        attend_bert_free(m);
    }
    test_refusals(ctx);
    attend_ctx_free(ctx);
    test_program();
    program_fini();
    return done_testing();
}
