/* SPDX-License-Identifier: MIT */
/* attend map on tiny generated models: weights to files, the page, what is refused. */
#include "attend.h"
#include "gen_bert.h"
#include "gen_gguf.h"
#include "program.h"
#include "tap.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOLDER "845-map.tmp"

static char err[400];

static attend_array read_maps(const char *name)
{
    char path[100];
    attend_array a;
    snprintf(path, sizeof path, FOLDER "/%s", name);
    if (attend_npy_read(path, &a, err, sizeof err) < 0)
        bail("%s", err);
    return a;
}

/* Each row of each map sums to 1: f32, of at most 20 cells. */
static void sums_to_one(const attend_array *a, const char *what)
{
    const int64_t *dim = a->shape.dim, rows = dim[0] * dim[1] * dim[2];
    const float *w = a->data;
    double most = 0;
    for (int64_t i = 0; i < rows; i++) {
        double sum = 0;
        for (int64_t j = 0; j < dim[3]; j++)
            sum += (double)w[i * dim[3] + j];
        most = fmax(most, fabs(sum - 1));
    }
    is_float(most, 0, 1e-5, "%s: each row sums to 1", what);
}

static void test_language_model(void)
{
    is_int(program_run("map -m tiny.gguf 'hello world, hello world' -o m.npy --quiet"), 0,
           "a language model");
    attend_array a = read_maps("m.npy");
    const int64_t n = a.shape.dim[2];
    ok(a.shape.rank == 4 && n == a.shape.dim[3] && n > 2, "has maps of n x n");
    sums_to_one(&a, "they");
    const float *w = a.data;
    double above = 0;
    for (int64_t m = 0; m < a.shape.dim[0] * a.shape.dim[1]; m++)
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = i + 1; j < n; j++)
                above += (double)fabsf(w[(m * n + i) * n + j]);
    is_float(above, 0, 0, "no token looks ahead");
    is_int(program_run("map -m tiny.gguf 'hello world, hello world' -o p.npy --pool 2,3 --kv f16"),
           0, "pooled");
    attend_array p = read_maps("p.npy");
    ok(p.shape.dim[2] == 2 && p.shape.dim[3] == 3, "maps have as many cells");
    sums_to_one(&p, "pooled");
    attend_free(a.data);
    attend_free(p.data);
}

static const char *read_page(const char *path)
{
    static char text[100000];
    FILE *f = fopen(path, "rb");
    if (!f)
        bail("there is no page");
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

static void test_page(void)
{
    gen_write_file(FOLDER, "text", "a </script> \" \\", 15);
    is_int(program_run("map -m . -f text -o page.html"), 0, "a sentence model, to a page");
    const char *text = read_page(FOLDER "/page.html");
    ok(strncmp(text, "<!DOCTYPE html>", 15) == 0 && strstr(text, "</html>\n"), "it is whole");
    ok(strstr(text, "layers: 2, heads: 3, rows: 9, cols: 9,") != NULL, "with the maps' sizes");
    ok(!strstr(text, "http://") && !strstr(text, "https://"), "it needs no network");
    ok(strstr(text, "\"[CLS]\",\" a\",\" [UNK]\"") != NULL, "and the tokens");
    const char *end = strstr(text, "</script>");
    ok(end && !strstr(end + 1, "</script>"), "a text cannot end the script");
}

/* A file's first n bytes are these. */
static bool begins(const char *name, const char *bytes, size_t n)
{
    char path[100], head[16] = "";
    snprintf(path, sizeof path, FOLDER "/%s", name);
    FILE *f = fopen(path, "rb");
    size_t got = f ? fread(head, 1, sizeof head, f) : 0;
    if (f)
        fclose(f);
    return got >= n && memcmp(head, bytes, n) == 0;
}

/* Weights of a file, whose two axes have tokens of their own. */
static void test_file(void)
{
    float w[2 * 3 * 4] = {1, 0, 0, 0, 0, 1};
    const attend_array a = {
        .type = ATTEND_F32, .shape = ATTEND_SHAPE(2, 3, 4), .data = w, .bytes = sizeof w};
    if (attend_npy_write(FOLDER "/w.npy", &a, err, sizeof err) < 0)
        bail("%s", err);
    gen_write_file(FOLDER, "rows", "x\ny\n", 4);
    gen_write_file(FOLDER, "cols", "a\nb\n\xc3\xa9\nd", 8);
    is_int(program_run("map --weights w.npy --labels rows,cols -o two.html"), 0,
           "weights of a file with two axes of tokens: a page");
    ok(strstr(read_page(FOLDER "/two.html"),
              "tokens: [\"x\",\"y\"],\ncolumns: [\"a\",\"b\",\"\xc3\xa9\",\"d\"]") != NULL,
       "which names both");
    if (program_run("map --weights w.npy --labels rows,cols -o two.png") != 0 &&
        strstr(program_err, "without libpng")) {
        skip("%s", program_err);
        return;
    }
    ok(begins("two.png", "\x89PNG\r\n\x1a\n", 8), "they are a picture");
    is_int(program_run("map -m tiny.gguf 'hello world' -o model.png --quiet"), 0, "a model's");
    ok(begins("model.png", "\x89PNG\r\n\x1a\n", 8), "are a picture, too");
    program_run("map --weights w.npy --labels cols -o no.png");
    program_said(1, "attend map: w.npy: 3 x 4 weights for 4 x 4 tokens");
    program_run("map --weights w.npy -o no.png");
    program_said(2, "attend map: --labels is missing: which tokens are these?");
    program_run("map --weights w.npy --labels rows -o no.npy");
    program_said(2, "attend map: --weights: a file becomes a .png or .html");
}

static void test_refusals(void)
{
    static const struct {
        const char *args;
        int status;
        const char *sentence;
    } bad[] = {
        {"map",                                    2, "attend map: -m is missing: which model?"                            },
        {"map -m . x",                             2, "attend map: -o OUT: the file's name must end in .html, .png or .npy"},
        {"map -m . -o a.html",                     2,
         "attend map: want one text, as an argument in quotes or with -f FILE"                                             },
        {"map -m . x -f text -o a.html",           2,
         "attend map: want one text, as an argument in quotes or with -f FILE"                                             },
        {"map -m . 'a a a a a a a a a' -o a.html", 1,
         "attend map: .: the text has 11 tokens, and the model takes 10"                                                   },
        {"map -m . a --pool 4,1 -o a.npy",         2,
         "attend map: --pool: \"4,1\" is not two numbers with a comma between them from 1 to 3"                            },
    };
    for (size_t i = 0; i < NELEM(bad); i++) {
        program_run("%s", bad[i].args);
        program_said(bad[i].status, bad[i].sentence);
    }
}

int main(void)
{
    struct gen_model m;
    program_init(FOLDER);
    gen_model_init(&m);
    gen_model_write(&m, FOLDER "/tiny.gguf");
    gen_bert_write(FOLDER, NULL);
    program_run("map -m tiny.gguf x -o m.npy");
    if (strstr(program_err, "built without"))
        skip_all("%s", program_err);
    test_language_model();
    test_file();
    program_run("embed -m . -o e.npy < tiny.gguf");
    if (strstr(program_err, "built without")) {
        skip("%s", program_err);
    } else {
        test_page();
        test_refusals();
    }
    program_fini();
    return done_testing();
}
