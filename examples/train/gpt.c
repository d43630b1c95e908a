/* SPDX-License-Identifier: MIT */
/* A small GPT that learns the bytes of a text, and then writes some.
 *
 *     gpt FOLDER TEXT...              trains on the files one after the other; FOLDER is made
 *     gpt FOLDER --steps 2000 TEXT... goes on from FOLDER's checkpoint up to that step
 *     gpt FOLDER --sample 400         writes 400 bytes
 *     gpt FOLDER --plan TEXT...       prints the plan of a step, and does nothing
 *
 * with --device NAME on a device that `attend devices` lists.
 *
 * One graph is a step of training: the model, its loss, the gradients and AdamW, which writes the
 * weights in place.  What a batch holds depends on the number of the step alone, so a run that was
 * stopped goes on to the same bits.  FOLDER has config.json, model.safetensors, and
 * checkpoint.safetensors with the moments. */
#include <math.h>
#include <models.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <time.h>

#include "train.h"

enum { LAYERS = 4, WIDTH = 128, HEADS = 4, LENGTH = 128, BATCH = 16, BYTES = 256, SAVE = 200 };

static float now_step = 0;
static bool show_plan; /* --plan */

/* ---- weights ---- */

/* Normal around 0, or (deviation below 0) all 1. */
static void fill(struct weight *w, float deviation, uint64_t state)
{
    for (int64_t i = 0; i < count(w); i++) {
        double u = uniform(&state), v = uniform(&state);
        double normal = sqrt(-2 * log(1 - u)) * cos(2 * 3.14159265358979323846 * v);
        w->data[0][i] = deviation < 0 ? 1 : (float)(normal * (double)deviation);
    }
}

static attend_tensor weight(attend_graph *g, int *next, const char *name, attend_shape shape,
                            float deviation)
{
    return next_weight(g, next, name, shape, deviation, fill)->state[0];
}

/* ---- the model ---- */

static attend_tensor layer(attend_graph *g, int *next, int l, attend_tensor x)
{
    char name[32];
    attend_multi_head_opts o;
    attend_attention_opts a;
    attend_multi_head_opts_init(&o);
    attend_attention_opts_init(&a);
    a.mask.causal = 1;
    a.mask.align = ATTEND_TOP_LEFT;
    o.heads = HEADS;
    o.attention = &a;
    float out = 0.02f / sqrtf(2 * LAYERS);
#define W(what, shape, deviation)                                                                  \
    (snprintf(name, sizeof name, "layer%d.%s", l, what), weight(g, next, name, shape, deviation))
    attend_tensor norm1 = W("norm1", ATTEND_SHAPE(WIDTH), -1);
    o.wqkv = W("wqkv", ATTEND_SHAPE(3 * WIDTH, WIDTH), 0.02f);
    o.wo = W("wo", ATTEND_SHAPE(WIDTH, WIDTH), out);
    attend_tensor norm2 = W("norm2", ATTEND_SHAPE(WIDTH), -1);
    attend_tensor up = W("up", ATTEND_SHAPE(4 * WIDTH, WIDTH), 0.02f);
    attend_tensor down = W("down", ATTEND_SHAPE(WIDTH, 4 * WIDTH), out);
#undef W
    attend_tensor y = attend_graph_layer_norm(g, x, norm1, attend_none(), 1e-5f);
    x = attend_graph_add(g, x, attend_graph_multi_head(g, y, attend_none(), &o, NULL));
    y = attend_graph_layer_norm(g, x, norm2, attend_none(), 1e-5f);
    y = attend_graph_gelu_tanh(g, attend_graph_matmul_nt(g, y, up));
    return attend_graph_add(g, x, attend_graph_matmul_nt(g, y, down));
}

static attend_tensor model(attend_graph *g, attend_tensor tokens)
{
    int next = 0;
    attend_tensor x = attend_graph_gather(
        g, weight(g, &next, "bytes", ATTEND_SHAPE(BYTES, WIDTH), 0.02f), tokens);
    x = attend_graph_add(g, x, weight(g, &next, "places", ATTEND_SHAPE(LENGTH, WIDTH), 0.02f));
    for (int l = 0; l < LAYERS; l++)
        x = layer(g, &next, l, x);
    x = attend_graph_layer_norm(g, x, weight(g, &next, "norm", ATTEND_SHAPE(WIDTH), -1),
                                attend_none(), 1e-5f);
    return attend_graph_matmul_nt(g, x,
                                  weight(g, &next, "head", ATTEND_SHAPE(BYTES, WIDTH), 0.02f));
}

/* ---- files ---- */

static const char *path_in(const char *folder, const char *name)
{
    static char path[1000];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void save(const char *folder)
{
    char err[320];
    attend_named_array all[3 * MOST + 1];
    int n = 0;
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < nweight; i++)
            all[n++] = (attend_named_array){
                weights[i].name[k],
                {ATTEND_F32, weights[i].shape, weights[i].data[k],
                             count(&weights[i]) * (int64_t)sizeof(float)}
            };
    all[n++] = (attend_named_array){
        "step", {ATTEND_F32, ATTEND_SHAPE(1), &now_step, sizeof now_step}
    };
    if (attend_safetensors_write(path_in(folder, "checkpoint.safetensors"), all, n, err,
                                 sizeof err) < 0 ||
        attend_safetensors_write(path_in(folder, "model.safetensors"), all, nweight, err,
                                 sizeof err) < 0)
        die(err);
    FILE *f = fopen(path_in(folder, "config.json"), "w");
    if (!f)
        die("cannot write config.json");
    fprintf(f,
            "{\"layers\": %d, \"width\": %d, \"heads\": %d, \"length\": %d, \"bytes\": %d, "
            "\"step\": %d}\n",
            LAYERS, WIDTH, HEADS, LENGTH, BYTES, (int)now_step);
    fclose(f);
}

static void take(const attend_safetensors *s, const char *name, float *to, int64_t bytes)
{
    char err[320] = "a tensor is missing or has another size";
    attend_safetensors_tensor t;
    if (attend_safetensors_get(s, name, &t, err, sizeof err) != 1 || t.type != ATTEND_F32 ||
        t.bytes != bytes)
        die(err);
    memcpy(to, t.data, (size_t)bytes);
}

/* Reads FOLDER's checkpoint, if there is one. */
static void restore(const char *folder)
{
    char err[320];
    attend_safetensors *s;
    const char *path = path_in(folder, "checkpoint.safetensors");
    FILE *f = fopen(path, "rb");
    if (!f)
        return;
    fclose(f);
    if (attend_safetensors_open(path, &s, err, sizeof err) < 0)
        die(err);
    for (int i = 0; i < nweight; i++)
        for (int k = 0; k < 3; k++)
            take(s, weights[i].name[k], weights[i].data[k],
                 count(&weights[i]) * (int64_t)sizeof(float));
    take(s, "step", &now_step, sizeof now_step);
    attend_safetensors_free(s);
}

static unsigned char *read_text(char **files, int n, int64_t *size)
{
    unsigned char *text = NULL;
    *size = 0;
    for (int i = 0; i < n; i++) {
        FILE *f = fopen(files[i], "rb");
        unsigned char part[4096];
        size_t got;
        while (f && (got = fread(part, 1, sizeof part, f)) > 0) {
            text = realloc(text, (size_t)*size + got);
            if (!text)
                die("no memory");
            memcpy(text + *size, part, got);
            *size += (int64_t)got;
        }
        if (!f || fclose(f))
            die(files[i]);
    }
    if (*size < LENGTH + 2)
        die("the text is shorter than a sequence");
    return text;
}

/* ---- training ---- */

static double seconds(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int32_t tokens[BATCH * LENGTH], targets[BATCH * LENGTH];

/* The batch of a step: anywhere in the text. */
static void draw(const unsigned char *text, int64_t size, int step)
{
    uint64_t state = mix((uint64_t)step) >> 8 << 12;
    for (int b = 0; b < BATCH; b++) {
        int64_t from = (int64_t)(uniform(&state) * (double)(size - LENGTH - 1));
        for (int i = 0; i < LENGTH; i++) {
            tokens[b * LENGTH + i] = text[from + i];
            targets[b * LENGTH + i] = text[from + i + 1];
        }
    }
}

/* Rises for 100 steps, then falls as a cosine to a tenth. */
static float rate_of(int step, int steps)
{
    double most = 1e-3, part = (double)step / (double)steps;
    return (float)(step < 100 ? most * step / 100
                              : most * (0.55 + 0.45 * cos(3.14159265358979323846 * part)));
}

static attend_graph *training_graph(attend_ctx *ctx)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor rate = attend_graph_input(g, "rate", ATTEND_F32, (attend_shape){0, {0}});
    attend_tensor step = attend_graph_input(g, "step", ATTEND_F32, (attend_shape){0, {0}});
    attend_tensor logits =
        model(g, attend_graph_input(g, "tokens", ATTEND_I32, ATTEND_SHAPE(BATCH, LENGTH)));
    attend_tensor want = attend_graph_input(g, "targets", ATTEND_I32, ATTEND_SHAPE(BATCH, LENGTH));
    attend_tensor loss = attend_graph_cross_entropy(g, logits, want);
    learn(g, loss, rate, step, 0.99f, 0.1f);
    attend_graph_output(g, "loss", loss);
    return g;
}

static void train(attend_ctx *ctx, const char *folder, int steps, char **files, int nfiles)
{
    int64_t size;
    unsigned char *text = read_text(files, nfiles, &size);
    float rate, step, loss;
    attend_graph *g = training_graph(ctx);
    const attend_binding extra[] = {
        binding("tokens", tokens, sizeof tokens), binding("targets", targets, sizeof targets),
        binding("rate", &rate, sizeof rate),      binding("step", &step, sizeof step),
        binding("loss", &loss, sizeof loss),
    };
    mkdir(folder, 0777); /* or it is there */
    restore(folder);
    struct run r = compile(g, extra, 5);
    if (show_plan) {
        char *plan = attend_plan_describe(r.plan, ATTEND_TEXT);
        puts(plan ? plan : "no memory");
        attend_free(plan);
        return;
    }
    FILE *losses = fopen(path_in(folder, "loss.txt"), "a"); /* a line a step */
    double begin = seconds(), mean = 0;
    if (!losses)
        die("cannot write loss.txt");
    int first = (int)now_step;
    for (int s = first + 1; s <= steps; s++) {
        draw(text, size, s);
        rate = rate_of(s, steps);
        step = (float)s;
        if (attend_run(r.exec) < 0)
            die(attend_exec_error(r.exec));
        now_step = step;
        fprintf(losses, "%d %.6f\n", s, (double)loss);
        double done = s - first, each = (seconds() - begin) / done;
        mean += ((double)loss - mean) / fmin(done, 50);
        printf("\rstep %d of %d  loss %.4f  %.0f tokens/s  %.0f s left ", s, steps, mean,
               BATCH * LENGTH / each, each * (steps - s));
        if (s % 50 == 0)
            printf("\n");
        fflush(stdout);
        if (s % SAVE == 0 || s == steps)
            save(folder);
    }
    printf("\n");
    fclose(losses);
    end(&r);
    free(text);
}

/* ---- sampling ---- */

static void sample(attend_ctx *ctx, const char *folder, int length)
{
    static float logits[LENGTH * BYTES];
    static int32_t window[LENGTH];
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor out =
        model(g, attend_graph_input(g, "tokens", ATTEND_I32, ATTEND_SHAPE(1, LENGTH)));
    attend_graph_output(g, "logits", out);
    const attend_binding extra[] = {
        binding("tokens", window, sizeof window),
        binding("logits", logits, sizeof logits),
    };
    restore(folder);
    struct run r = compile(g, extra, 2);
    uint64_t state = 7;
    int n = 1;
    window[0] = '\n';
    for (int made = 0; made < length; made++) {
        if (attend_run(r.exec) < 0)
            die(attend_exec_error(r.exec));
        const float *row = logits + (n - 1) * BYTES;
        double sum = 0, most = -INFINITY;
        for (int b = 0; b < BYTES; b++)
            most = fmax(most, (double)row[b]);
        for (int b = 0; b < BYTES; b++)
            sum += exp(((double)row[b] - most) / 0.8);
        double left = uniform(&state) * sum;
        int b = 0;
        while (b < BYTES - 1 && (left -= exp(((double)row[b] - most) / 0.8)) > 0)
            b++;
        putchar(b);
        if (n == LENGTH)
            memmove(window, window + 1, sizeof window - sizeof *window);
        window[n == LENGTH ? n - 1 : n++] = b;
    }
    putchar('\n');
    end(&r);
}

/* Takes "--name VALUE", or "--name" where value is NULL, off the front of the arguments. */
static bool option(int argc, char **argv, int *at, const char *name, const char **value)
{
    if (*at + (value != NULL) >= argc || strcmp(argv[*at], name) != 0)
        return false;
    if (value)
        *value = argv[++*at];
    ++*at;
    return true;
}

int main(int argc, char **argv)
{
    attend_ctx *ctx;
    const char *steps = "1000", *bytes = "0";
    int at = 2;
    while (option(argc, argv, &at, "--steps", &steps) ||
           option(argc, argv, &at, "--sample", &bytes) ||
           option(argc, argv, &at, "--device", &device) ||
           (option(argc, argv, &at, "--plan", NULL) && (show_plan = true)))
        ;
    if (argc < 2 || (at == argc && atoi(bytes) <= 0)) {
        fprintf(stderr,
                "usage: gpt FOLDER [--device NAME] [--plan] [--steps N] TEXT... | gpt FOLDER "
                "--sample N\n");
        return 2;
    }
    if (attend_ctx_new(NULL, &ctx) < 0)
        return 1;
    if (atoi(bytes) > 0)
        sample(ctx, argv[1], atoi(bytes));
    else
        train(ctx, argv[1], atoi(steps), argv + at, argc - at);
    attend_ctx_free(ctx);
    return 0;
}
