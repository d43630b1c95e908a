/* SPDX-License-Identifier: MIT */
/* attend map: what a model looks at, the attention weights of each layer and head. */
#include "map.h"
#include "model.h"
#include "os.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cmd_flag flags[] = {
    MODEL_FLAGS,
    {"-o",        "OUT",
      "OUT.html, a page to look at; OUT.png; OUT.npy, f32 (layers, heads, tokens, tokens)",   NULL},
    {"-f",        "FILE",        "the text is in a file",                                    NULL},
    {"--pool",    "R,C",         "maps of R x C cells: sums over keys of means over rows",   NULL},
    {"--weights", "W.npy",
      "instead of a model: weights of any, f32 (layers, heads, rows, columns) or fewer axes", NULL},
    {"--labels",  "R.txt,C.txt",
      "their tokens, one a line: of rows, and of columns if they are others",                 NULL},
    {NULL,        NULL,          NULL,                                                       NULL},
};

/* Cells of a picture or a page, in all its maps together. */
enum { MOST_CELLS = 6000000 };

enum kind { NPY, HTML, PNG };

struct job {
    struct map map;
    struct model model; /* a language model's */
    attend_bert *bert;  /* or a sentence model's */
    attend_tokenizer *tokenizer;
    const char *file; /* -m */
    char *text;
    size_t size;
    int32_t *id;
    attend_weights_opts kept;
    enum kind kind;
    const char *out;
};

double map_entropy(const struct map *m, int64_t layer, int64_t head)
{
    const int64_t *dim = m->cells.shape.dim, cells = dim[2] * dim[3];
    const float *w = (const float *)m->cells.data + (layer * dim[1] + head) * cells;
    double sum = 0;
    for (int64_t i = 0; i < cells; i++)
        if (w[i] > 0)
            sum -= (double)w[i] * log((double)w[i]);
    return sum / (double)dim[2];
}

/* ---- what is asked for ---- */

static int read_kind(struct job *j)
{
    static const char *const endings[] = {".npy", ".html", ".png"};
    const char *dot = j->out ? strrchr(j->out, '.') : NULL;
    for (int i = 0; dot && i < 3; i++)
        if (strcmp(dot, endings[i]) == 0) {
            j->kind = (enum kind)i;
            return CMD_DONE;
        }
    return cmd_wrong(j->map.l, "-o OUT: the file's name must end in .html, .png or .npy");
}

static int read_text(struct job *j)
{
    const struct cmd_line *l = j->map.l;
    const char *file = cmd_value(l, "-f");
    struct at_os_map map;
    char err[320];
    if ((l->narg == 1) == (file != NULL) || l->narg > 1)
        return cmd_wrong(l, "want one text, as an argument in quotes or with -f FILE");
    if (file && at_os_map_file(&map, file, err, sizeof err) < 0)
        return cmd_fail(l, NULL, "%s", err);
    j->size = file ? map.size : strlen(l->arg[0]);
    j->text = malloc(j->size + 1);
    j->id = malloc((j->size + 3) * sizeof *j->id);
    if (j->text && j->id)
        memcpy(j->text, file ? map.data : l->arg[0], j->size);
    if (file)
        at_os_unmap(&map);
    return j->text && j->id ? CMD_DONE : cmd_fail(l, NULL, "no memory for %zu bytes", j->size);
}

/* Cells, once tokens and heads are counted. */
static int read_pool(struct job *j, int64_t maps)
{
    const struct cmd_line *l = j->map.l;
    int64_t cells[2] = {j->map.n, j->map.n};
    int64_t most = (int64_t)sqrt((double)MOST_CELLS / (double)maps);
    if (j->kind != NPY && cells[0] > most)
        cells[0] = cells[1] = most > 1 ? most : 1;
    if (!cmd_ints(l, "--pool", 1, j->map.n, cells))
        return CMD_WRONG;
    attend_weights_opts_init(&j->kept);
    if (cells[0] < j->map.n || cells[1] < j->map.n) {
        j->kept.mode = ATTEND_WEIGHTS_POOL;
        j->kept.rows = cells[0];
        j->kept.cols = cells[1];
    }
    return CMD_DONE;
}

/* A token's text for people: the characters that end in it, so that one of several tokens is the
 * last one's. */
static char *make_label(attend_utf8 *u, attend_str piece)
{
    char *text = malloc(3 * (piece.n + 3) + 10);
    if (!text)
        return NULL;
    text[piece.n ? attend_utf8_push(u, piece.s, piece.n, text) : 0] = 0;
    return text;
}

static int make_labels(struct job *j)
{
    attend_utf8 u = {{0}, 0};
    j->map.label = calloc((size_t)j->map.n, sizeof *j->map.label);
    for (int64_t i = 0; j->map.label && i < j->map.n; i++) {
        attend_str piece = j->bert
                               ? attend_wordpiece_piece(attend_bert_wordpiece(j->bert), j->id[i])
                               : attend_tokenizer_piece(j->tokenizer, j->id[i]);
        j->map.label[i] = make_label(&u, piece);
        if (!j->map.label[i])
            return cmd_fail(j->map.l, NULL, "no memory for %" PRId64 " tokens", j->map.n);
        /* pieces of a sentence model begin words where they do not begin with ## */
        char *t = j->map.label[i];
        if (j->bert && strncmp(t, "##", 2) == 0) {
            memmove(t, t + 2, strlen(t + 2) + 1);
        } else if (j->bert && i > 0) {
            memmove(t + 1, t, strlen(t) + 1);
            t[0] = ' ';
        }
    }
    j->map.ncol = j->map.n;
    j->map.column = j->map.label;
    return j->map.label ? CMD_DONE : cmd_fail(j->map.l, NULL, "no memory for labels");
}

/* ---- a sentence model ---- */

static int map_bert(struct job *j)
{
    const struct cmd_line *l = j->map.l;
    char err[1400];
    attend_bert_opts opts;
    attend_bert_opts_init(&opts);
    opts.device = cmd_value(l, "--device");
    opts.batch = 1;
    int status = cmd_context(l, &j->model.ctx);
    if (status != CMD_DONE)
        return status;
    if (attend_bert_open(j->model.ctx, j->file, &opts, &j->bert, err, sizeof err) < 0)
        return cmd_fail(l, NULL, "%s", err);
    const int64_t limit = attend_bert_limit(j->bert);
    j->map.n = attend_wordpiece_encode(attend_bert_wordpiece(j->bert), j->text, j->size, j->id);
    if (j->map.n > limit)
        return cmd_fail(l, j->file, "the text has %" PRId64 " tokens, and the model takes %" PRId64,
                        j->map.n, limit);
    status = read_pool(j, attend_bert_maps_count(j->bert));
    if (status == CMD_DONE &&
        attend_bert_maps(j->bert, j->id, j->map.n, &j->kept, &j->map.cells, err, sizeof err) < 0)
        status = cmd_fail(l, j->file, "%s", err);
    return status;
}

/* ---- a language model ---- */

static int encode(struct job *j)
{
    char err[320];
    if (attend_tokenizer_new(j->model.gguf, &j->tokenizer, err, sizeof err) < 0)
        return cmd_fail(j->map.l, j->file, "%s", err);
    const int32_t bos = attend_tokenizer_bos(j->tokenizer);
    if (bos >= 0)
        j->id[j->map.n++] = bos;
    int64_t n = attend_tokenizer_encode(j->tokenizer, j->text, j->size, 1, j->id + j->map.n, err,
                                        sizeof err);
    if (n < 0)
        return cmd_fail(j->map.l, NULL, "the text: %s", err);
    j->map.n += n;
    return j->map.n > 0 ? CMD_DONE : cmd_fail(j->map.l, NULL, "the text has no tokens");
}

static int map_llama(struct job *j)
{
    char err[400];
    int64_t layers = 1, heads = 1;
    attend_llama_opts opts;
    int status = model_open(&j->model, j->map.l);
    if (status == CMD_DONE)
        status = encode(j);
    if (status == CMD_DONE)
        status = model_opts(&j->model, &opts);
    if (status != CMD_DONE)
        return status;
    /* What is wrong with these is told below. */
    if (attend_gguf_int(j->model.gguf, "llama.block_count", &layers, NULL, 0) < 0 ||
        attend_gguf_int(j->model.gguf, "llama.attention.head_count", &heads, NULL, 0) < 0 ||
        layers < 1 || layers > 4096 || heads < 1 || heads > 65536)
        layers = heads = 1;
    status = read_pool(j, layers * heads);
    if (status == CMD_DONE && attend_llama_maps(j->model.ctx, j->model.gguf, &opts, j->id, j->map.n,
                                                &j->kept, &j->map.cells, err, sizeof err) < 0)
        status = cmd_fail(j->map.l, j->file, "%s", err);
    return status;
}

/* ---- the run ---- */

static int write_npy(const struct job *j)
{
    char err[320];
    if (attend_npy_write(j->out, &j->map.cells, err, sizeof err) < 0)
        return cmd_fail(j->map.l, NULL, "%s", err);
    return CMD_DONE;
}

static int write_picture(struct job *j)
{
    return j->kind == HTML ? map_write_page(&j->map, j->out) : map_write_png(&j->map, j->out);
}

static int write_out(struct job *j)
{
    if (j->kind == NPY)
        return write_npy(j);
    int status = make_labels(j);
    return status == CMD_DONE ? write_picture(j) : status;
}

static int run_files(struct job *j)
{
    const struct cmd_line *l = j->map.l;
    if (j->file || l->narg)
        return cmd_wrong(l,
                         "--weights shows what is in a file: neither -m nor a text goes with it");
    int status = read_kind(j);
    if (status == CMD_DONE && j->kind == NPY)
        return cmd_wrong(l, "--weights: a file becomes a .png or .html");
    if (status == CMD_DONE)
        status = map_read_files(&j->map);
    return status == CMD_DONE ? write_picture(j) : status;
}

static int run_job(struct job *j)
{
    if (cmd_has(j->map.l, "--weights"))
        return run_files(j);
    if (!j->file)
        return cmd_wrong(j->map.l, "-m is missing: which model?");
    int status = read_kind(j);
    if (status == CMD_DONE)
        status = read_text(j);
    if (status == CMD_DONE)
        status = at_os_is_folder(j->file) ? map_bert(j) : map_llama(j);
    return status == CMD_DONE ? write_out(j) : status;
}

static int run(const struct cmd_line *l)
{
    struct job j = {.map.l = l, .file = cmd_value(l, "-m"), .out = cmd_value(l, "-o")};
    const char *file = j.file ? j.file : cmd_value(l, "--weights");
    const char *slash = file ? strrchr(file, '/') : NULL;
    j.map.model = slash && slash[1] ? slash + 1 : file;
    int status = run_job(&j);
    map_free(&j.map);
    attend_tokenizer_free(j.tokenizer);
    attend_bert_free(j.bert);
    model_close(&j.model);
    free(j.text);
    free(j.id);
    return status;
}

const struct cmd_verb cmd_map = {
    "map",
    "-m MODEL.gguf|DIR \"TEXT\" -o OUT.html|.png|.npy [flags], or --weights W.npy --labels "
    "R.txt,C.txt -o OUT.html|.png",
    "what a model looks at: its attention weights",
    flags,
    run,
    false,
};
