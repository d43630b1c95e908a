/* SPDX-License-Identifier: MIT */
/* The folder of a BERT model: sizes from config.json, the longest sequence, pooling and case from
 * the files beside it where they are there, the vocabulary. */
#include "bert.h"
#include "os.h"
#include "say.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* A JSON file as it is read; like a graph, it keeps the first error. */
struct config {
    char path[1024];
    json_t *root;
    int status;
    char *err;
    size_t errlen;
};

#define REFUSE(c, code, ...)                                                                       \
    ((c)->status < 0 ? (c)->status                                                                 \
                     : ((c)->status = at_say((c)->err, (c)->errlen, code, __VA_ARGS__)))

int at_bert_path(char path[1024], const char *folder, const char *name)
{
    return snprintf(path, 1024, "%s/%s", folder, name) < 1024;
}

/* Opens FOLDER/NAME.  A file that may be missing then has no root. */
static struct config open_config(const char *folder, const char *name, bool optional, char *err,
                                 size_t errlen)
{
    struct config c = {.err = err, .errlen = errlen};
    struct at_os_map map;
    json_error_t why;
    if (!at_bert_path(c.path, folder, name)) {
        REFUSE(&c, ATTEND_EIO, "%s: the path is too long", folder);
        return c;
    }
    if (at_os_map_file(&map, c.path, err, errlen) < 0) {
        c.status = optional ? 0 : ATTEND_EIO;
        return c;
    }
    c.root = json_loadb(map.data, map.size, JSON_REJECT_DUPLICATES, &why);
    at_os_unmap(&map);
    if (!c.root)
        REFUSE(&c, ATTEND_EFORMAT, "%s: line %d: %s", c.path, why.line, why.text);
    else if (!json_is_object(c.root))
        REFUSE(&c, ATTEND_EFORMAT, "%s: this is no JSON object", c.path);
    return c;
}

static int close_config(struct config *c)
{
    json_decref(c->root);
    return c->status;
}

/* *value is the default, or -1 where there is none. */
static void read_int(struct config *c, const char *key, int64_t min, int64_t max, int64_t *value)
{
    const json_t *v = json_object_get(c->root, key);
    if (json_is_integer(v))
        *value = json_integer_value(v);
    else if (v)
        REFUSE(c, ATTEND_EFORMAT, "%s: '%s' is no whole number", c->path, key);
    else if (*value < 0)
        REFUSE(c, ATTEND_EFORMAT, "%s: '%s' is missing", c->path, key);
    if (*value < min || *value > max)
        REFUSE(c, ATTEND_EFORMAT, "%s: '%s' is %" PRId64 ", want %" PRId64 " to %" PRId64, c->path,
               key, *value, min, max);
}

/* Which of the words the value is; without one, the first. */
static int read_word(struct config *c, const char *key, const char *const *words, int n)
{
    const json_t *v = json_object_get(c->root, key);
    const char *text = v ? json_string_value(v) : words[0];
    for (int i = 0; text && i < n; i++)
        if (strcmp(words[i], text) == 0)
            return i;
    REFUSE(c, ATTEND_EUNSUPPORTED, "%s: '%s' is '%.40s', which is not supported; '%s' is", c->path,
           key, text ? text : "?", words[0]);
    return 0;
}

static bool is_true(const struct config *c, const char *key, bool otherwise)
{
    const json_t *v = json_object_get(c->root, key);
    return v ? json_is_true(v) : otherwise;
}

static int read_sizes(struct at_bert_sizes *n, const char *folder, char *err, size_t errlen)
{
    enum { MANY = 1 << 20 };
    static const char *const kinds[] = {"bert"}, *const places[] = {"absolute"};
    static const char *const activations[] = {"gelu", "gelu_new", "gelu_pytorch_tanh", "relu"};
    struct config c = open_config(folder, "config.json", false, err, errlen);
    if (c.status < 0)
        return close_config(&c);
    *n = (struct at_bert_sizes){-1, -1, -1, -1, -1, -1, .types = 2, .eps = 1e-12f};
    read_word(&c, "model_type", kinds, 1);
    read_word(&c, "position_embedding_type", places, 1);
    read_int(&c, "num_hidden_layers", 1, 4096, &n->layers);
    read_int(&c, "hidden_size", 1, MANY, &n->width);
    read_int(&c, "intermediate_size", 1, MANY, &n->hidden);
    read_int(&c, "num_attention_heads", 1, MANY, &n->heads);
    read_int(&c, "vocab_size", 1, INT32_MAX, &n->vocabulary);
    read_int(&c, "max_position_embeddings", 2, MANY, &n->positions);
    read_int(&c, "type_vocab_size", 1, MANY, &n->types);
    if (c.status == 0 && (n->width % n->heads != 0 || n->width / n->heads > 576))
        REFUSE(&c, ATTEND_EFORMAT, "%s: %" PRId64 " channels cannot be %" PRId64 " heads", c.path,
               n->width, n->heads);
    int activation = read_word(&c, "hidden_act", activations, 4);
    n->activation = activation == 0   ? AT_BERT_GELU
                    : activation == 3 ? AT_BERT_RELU
                                      : AT_BERT_GELU_TANH;
    const json_t *eps = json_object_get(c.root, "layer_norm_eps");
    double value = eps ? json_number_value(eps) : 1e-12;
    if (!(value > 0 && value < 1))
        REFUSE(&c, ATTEND_EFORMAT, "%s: 'layer_norm_eps' is %g", c.path, value);
    n->eps = (float)value;
    return close_config(&c);
}

/* The files that sentence-transformers adds. */
static int read_sentence_files(attend_bert *m, const char *folder, int *lower, char *err,
                               size_t errlen)
{
    struct config c = open_config(folder, "sentence_bert_config.json", true, err, errlen);
    m->limit = m->n.positions;
    if (c.root)
        read_int(&c, "max_seq_length", 2, m->n.positions, &m->limit);
    if (close_config(&c) < 0)
        return c.status;
    c = open_config(folder, "1_Pooling/config.json", true, err, errlen);
    if (c.root && !is_true(&c, "pooling_mode_mean_tokens", true))
        REFUSE(&c, ATTEND_EUNSUPPORTED,
               "%s: the model's pooling is not the mean of tokens, which alone is supported",
               c.path);
    if (close_config(&c) < 0)
        return c.status;
    c = open_config(folder, "tokenizer_config.json", true, err, errlen);
    *lower = is_true(&c, "do_lower_case", true);
    return close_config(&c);
}

int at_bert_read_folder(attend_bert *m, const char *folder, int *lower, char *err, size_t errlen)
{
    char path[1024];
    int status = read_sizes(&m->n, folder, err, errlen);
    if (status == 0)
        status = read_sentence_files(m, folder, lower, err, errlen);
    if (status < 0)
        return status;
    if (!at_bert_path(path, folder, "vocab.txt"))
        return at_say(err, errlen, ATTEND_EIO, "%s: the path is too long", folder);
    status = attend_wordpiece_open(path, *lower, &m->wordpiece, err, errlen);
    if (status == 0 && attend_wordpiece_size(m->wordpiece) > m->n.vocabulary)
        status = at_say(err, errlen, ATTEND_EFORMAT,
                        "%s: %" PRId32 " pieces, but config.json says %" PRId64, path,
                        attend_wordpiece_size(m->wordpiece), m->n.vocabulary);
    return status;
}
