/* SPDX-License-Identifier: MIT */
/* Model files, tokens and sampling, on the public API: what a language model needs around its
 * graph.
 *
 * A function that can fail returns a negative ATTEND_E... status, leaves its outputs as they were
 * (a new object: NULL) and writes one sentence to (err, errlen), without a file name unless it says
 * otherwise; err may be NULL when errlen is 0.  Objects here do not change once made and may be
 * shared by threads, but for a sampler, which one thread uses at a time. */
#ifndef ATTEND_MODELS_H
#define ATTEND_MODELS_H

#include "attend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- GGUF files --------------------------------------------------------------------------- */

/* A GGUF file, version 2 or 3, little endian.  The file is mapped and is read as hostile input:
 * after opening, every key, string, array and tensor that the calls below hand out lies inside of
 * it. */
typedef struct attend_gguf attend_gguf;

/* Maps path and checks its structure: counts, lengths, types and alignment; that names are unique;
 * that tensors lie inside the file and do not overlap.  Contents of tensors are looked at only by
 * attend_gguf_tensor_check.  The sentence names the file.  ATTEND_EIO: it cannot be read;
 * ATTEND_EFORMAT: it is not GGUF, or damaged; ATTEND_EUNSUPPORTED: another version or byte order.
 * The file must not be cut short while it is open. */
ATTEND_API int attend_gguf_open(const char *path, attend_gguf **out, char *err,
                                size_t errlen) ATTEND_CHECK;
/* The same for a file in memory, 8-byte aligned, borrowed until attend_gguf_free. */
ATTEND_API int attend_gguf_from_memory(const void *data, size_t bytes, attend_gguf **out, char *err,
                                       size_t errlen) ATTEND_CHECK;
ATTEND_API void attend_gguf_free(attend_gguf *g);

/* The names of keys and tensors, in byte order; NULL where i is not below their number.  They live
 * as long as g. */
ATTEND_API const char *attend_gguf_key(const attend_gguf *g, int64_t i);
ATTEND_API const char *attend_gguf_tensor_name(const attend_gguf *g, int64_t i);

/* The value of a key.  1: the file has it; 0: it does not, and *value is left as it was, which is
 * how a default is given; ATTEND_EFORMAT: it has another type, or an integer above INT64_MAX.  An
 * integer may be stored in any integer type or as bool, a float also in any integer type. */
ATTEND_API int attend_gguf_int(const attend_gguf *g, const char *key, int64_t *value, char *err,
                               size_t errlen) ATTEND_CHECK;
ATTEND_API int attend_gguf_float(const attend_gguf *g, const char *key, double *value, char *err,
                                 size_t errlen) ATTEND_CHECK;

/* Bytes inside the file; no zero ends them, and they need not be UTF-8. */
typedef struct attend_str {
    const char *s;
    size_t n;
} attend_str;
ATTEND_API int attend_gguf_str(const attend_gguf *g, const char *key, attend_str *value, char *err,
                               size_t errlen) ATTEND_CHECK;

/* An array of integers or of strings; the return values are those of attend_gguf_int. */
typedef struct attend_gguf_array {
    const void *data;
    int64_t count;
    int type; /* of its elements, as in the file */
} attend_gguf_array;
ATTEND_API int attend_gguf_ints(const attend_gguf *g, const char *key, attend_gguf_array *value,
                                char *err, size_t errlen) ATTEND_CHECK;
ATTEND_API int attend_gguf_strs(const attend_gguf *g, const char *key, attend_gguf_array *value,
                                char *err, size_t errlen) ATTEND_CHECK;
/* Element i of an array of integers, 0 <= i < count; a u64 above INT64_MAX reads as INT64_MAX. */
ATTEND_API int64_t attend_gguf_array_int(const attend_gguf_array *a, int64_t i);
/* Takes the first string off an array of strings: true, or false when none is left. */
ATTEND_API int attend_gguf_array_next(attend_gguf_array *a, attend_str *value);

/* A tensor of the file.  data points into the file, at a multiple of 8 bytes. */
typedef struct attend_gguf_tensor {
    const char *name;
    attend_type type;
    attend_shape shape; /* slowest first: the file's order reversed */
    const void *data;
    int64_t bytes;
} attend_gguf_tensor;
/* 1: found; 0: the file has no such tensor, and *out is left as it was; ATTEND_EUNSUPPORTED: it has
 * a type that the library does not have. */
ATTEND_API int attend_gguf_tensor_get(const attend_gguf *g, const char *name,
                                      attend_gguf_tensor *out, char *err,
                                      size_t errlen) ATTEND_CHECK;
/* Reads all of a tensor and refuses with ATTEND_EFORMAT the first number (in quantised types: scale
 * or minimum of a block) that is NaN or infinite, naming its place.  Who makes constants of a file
 * calls it once for each: kernels trust constants. */
ATTEND_API int attend_gguf_tensor_check(const attend_gguf_tensor *t, char *err,
                                        size_t errlen) ATTEND_CHECK;

/* ---- safetensors files --------------------------------------------------------------------- */

/* A safetensors file: named tensors.  The file is mapped and is read as hostile input: after
 * opening, every tensor that the calls below hand out lies inside of it. */
typedef struct attend_safetensors attend_safetensors;

/* Maps path and checks its structure: the header's JSON, names, types, shapes, and that each byte
 * of the data belongs to just one tensor.  Contents are not looked at (attend_gguf_tensor_check
 * does that here too).  The sentence names the file.  ATTEND_EIO: it cannot be read;
 * ATTEND_EFORMAT: it is no safetensors file, or damaged; ATTEND_EUNSUPPORTED: the library was built
 * without jansson. The file must not be cut short while it is open. */
ATTEND_API int attend_safetensors_open(const char *path, attend_safetensors **out, char *err,
                                       size_t errlen) ATTEND_CHECK;
/* The same for a file in memory, 8-byte aligned, borrowed until attend_safetensors_free. */
ATTEND_API int attend_safetensors_from_memory(const void *data, size_t bytes,
                                              attend_safetensors **out, char *err,
                                              size_t errlen) ATTEND_CHECK;
ATTEND_API void attend_safetensors_free(attend_safetensors *s);

/* The names of tensors, in byte order; NULL where i is not below their number.  They live as long
 * as s. */
ATTEND_API const char *attend_safetensors_name(const attend_safetensors *s, int64_t i);

/* What there is to know of a tensor is the same as in GGUF; data is a multiple of its elements. */
typedef attend_gguf_tensor attend_safetensors_tensor;
/* 1: found; 0: the file has no such tensor, and *out is left as it was; ATTEND_EUNSUPPORTED: it has
 * a type that the library does not have, or does not lie at a multiple of its elements. */
ATTEND_API int attend_safetensors_get(const attend_safetensors *s, const char *name,
                                      attend_safetensors_tensor *out, char *err,
                                      size_t errlen) ATTEND_CHECK;

/* One tensor of a file that is written: f32, f16, bf16, f64, i32 or i64; names are plain text of up
 * to 255 bytes.  Wider types come first. */
typedef struct attend_named_array {
    const char *name;
    attend_array array;
} attend_named_array;
/* Writes beside path and renames: the file is whole, or as it was.  Needs no jansson. */
ATTEND_API int attend_safetensors_write(const char *path, const attend_named_array *tensors,
                                        int64_t n, char *err, size_t errlen) ATTEND_CHECK;

/* ---- UTF-8 as it arrives ------------------------------------------------------------------- */

/* Pieces of tokens are bytes and may end inside a character.  This holds such a tail back until the
 * rest has come.  Start from {0}. */
typedef struct attend_utf8 {
    unsigned char held[4];
    int count;
} attend_utf8;

/* Appends n bytes and writes to out the characters that are complete, as valid UTF-8: what can
 * never become a character is replaced by U+FFFD.  n = 0 ends the text: what is held back is
 * replaced too. out has room for 3 * (n + 3) bytes.  Returns how many were written. */
ATTEND_API size_t attend_utf8_push(attend_utf8 *u, const char *bytes, size_t n, char *out);

/* ---- Tokens ------------------------------------------------------------------------------- */

/* Byte-level BPE, as GPT-2 introduced it, with the vocabulary of a GGUF file. */
typedef struct attend_tokenizer attend_tokenizer;

/* Reads the tokenizer of g, which may be freed afterwards.  ATTEND_EFORMAT: its lists are missing
 * or contradict each other (empty or equal tokens, merges of unknown tokens); ATTEND_EUNSUPPORTED:
 * a kind of tokenizer that is not here, or the library was built without utf8proc. */
ATTEND_API int attend_tokenizer_new(const attend_gguf *g, attend_tokenizer **out, char *err,
                                    size_t errlen) ATTEND_CHECK;
ATTEND_API void attend_tokenizer_free(attend_tokenizer *t);
/* How many tokens it knows. */
ATTEND_API int32_t attend_tokenizer_size(const attend_tokenizer *t);
/* The token that starts a text, where the model wants one (its add_bos_token); else -1. */
ATTEND_API int32_t attend_tokenizer_bos(const attend_tokenizer *t);

/* Tokens of n bytes of UTF-8, to ids, which has room for n of them: that is always enough. special:
 * the names of control tokens in the text ("<|im_start|>") are these tokens; 0: they are plain
 * text. (User-defined tokens always are tokens.)  No start token is added.  As in other
 * implementations, a byte that the vocabulary does not have gives no token.  Returns how many;
 * ATTEND_EINVAL names the byte where text is not UTF-8; ATTEND_ELIMIT: 2^31 bytes or more.  The
 * time is n log n. */
ATTEND_API int64_t attend_tokenizer_encode(const attend_tokenizer *t, const char *text, size_t n,
                                           int special, int32_t *ids, char *err,
                                           size_t errlen) ATTEND_CHECK;

/* The bytes that token id stands for, not always whole characters (attend_utf8_push); {NULL, 0}
 * where id is no token.  A control token gives its name. */
ATTEND_API attend_str attend_tokenizer_piece(const attend_tokenizer *t, int32_t id);

/* END: a control token that ends a turn or a text. */
typedef enum attend_token_kind {
    ATTEND_TOKEN_TEXT = 0,
    ATTEND_TOKEN_CONTROL = 1,
    ATTEND_TOKEN_END = 2
} attend_token_kind;
/* ATTEND_EINVAL where id is no token. */
ATTEND_API int attend_tokenizer_kind(const attend_tokenizer *t, int32_t id);

/* What the user says (n bytes), wrapped as the chat template of g would for a first turn, ready for
 * attend_tokenizer_encode with special = 1 and no start token.  Templates are recognised, not run:
 * SmolLM2's and plain ChatML, Llama 3's; ATTEND_EUNSUPPORTED names any other, or says that g has
 * none. *out is freed with attend_free; returns its length. */
ATTEND_API int64_t attend_chat_wrap(const attend_gguf *g, const char *user, size_t n, char **out,
                                    char *err, size_t errlen) ATTEND_CHECK;
/* The same for a turn after an answer, whose end token has not been fed: it is in the text. */
ATTEND_API int64_t attend_chat_wrap_later(const attend_gguf *g, const char *user, size_t n,
                                          char **out, char *err, size_t errlen) ATTEND_CHECK;

/* ---- Language models ----------------------------------------------------------------------- */

/* A model of the Llama family with its cache of keys and values: tokens are fed, logits come back.
 * One thread at a time uses it.
 *
 *     attend_gguf_open(path, &file, err, sizeof err);
 *     attend_llama_new(ctx, file, NULL, &model, err, sizeof err);
 *     attend_llama_feed(model, prompt, n, n - 1, logits, err, sizeof err);
 *     while (...)
 *         token = attend_sampler_pick(sampler, logits, err, sizeof err),
 *         attend_llama_feed(model, &token, 1, 0, logits, err, sizeof err); */
typedef struct attend_llama attend_llama;

typedef struct attend_llama_opts {
    size_t size;
    const char *device; /* NULL: "auto" */
    int64_t context;    /* 0: all that the model was trained for; tokens that the cache holds */
    int64_t batch;      /* 512: tokens that go through the graph at once, at most */
    attend_type kv; /* f32; or f16, bf16, q8_0, q4_0 or f8 (without scales): type of the cache */
    attend_precision precision; /* exact; int8: activations that meet quantised weights in 8 bits */
    int composed; /* 1: attention is written as matrix products around a softmax, which
                     compilation makes the same plan of; for comparison */
    /* Called while weights are checked; NULL: not. */
    void (*progress)(void *arg, int64_t layers_done, int64_t layers);
    void *progress_arg;
} attend_llama_opts;
ATTEND_API void attend_llama_opts_init(attend_llama_opts *opts);

/* Checks all that the file says of the model and every number of its weights, and compiles.  ctx
 * and file are borrowed until the model is freed.  opts NULL: the defaults.  ATTEND_EFORMAT: keys
 * or tensors are missing or contradict each other; ATTEND_EUNSUPPORTED: another kind of model;
 * ATTEND_ELIMIT: a context above that of the model. */
ATTEND_API int attend_llama_new(attend_ctx *ctx, const attend_gguf *file,
                                const attend_llama_opts *opts, attend_llama **out, char *err,
                                size_t errlen) ATTEND_CHECK;
ATTEND_API void attend_llama_free(attend_llama *m);
/* Logits in a row; tokens that fit in the cache, and those that are in it. */
ATTEND_API int64_t attend_llama_vocabulary(const attend_llama *m);
ATTEND_API int64_t attend_llama_context(const attend_llama *m);
ATTEND_API int64_t attend_llama_fed(const attend_llama *m);
/* For printing; it lives as long as the model. */
ATTEND_API const attend_plan *attend_llama_plan(const attend_llama *m);

/* Feeds n tokens after those that were fed so far, and writes the logits after each of
 * tokens[from .. n - 1], a row each; from == n: none are wanted, and logits may be NULL.
 * ATTEND_ELIMIT: they do not fit into the context.  After a failure none of them counts as fed. */
ATTEND_API int attend_llama_feed(attend_llama *m, const int32_t *tokens, int64_t n, int64_t from,
                                 float *logits, char *err, size_t errlen) ATTEND_CHECK;
/* A flag that feeding looks at, as attend_exec_cancel; what was being fed then does not count. */
ATTEND_API void attend_llama_cancel(attend_llama *m, const volatile int *flag);
/* Forgets all that was fed. */
ATTEND_API void attend_llama_reset(attend_llama *m);

/* What each of n tokens looks at: the attention weights of all layers in one run over them, f32
 * (layers, heads, rows, columns), n x n of them (DENSE) or `kept` says how many (POOL; then no n x
 * n matrix is in memory).  opts as above, but for context and batch.  maps->data is freed with
 * attend_free. */
ATTEND_API int attend_llama_maps(attend_ctx *ctx, const attend_gguf *file,
                                 const attend_llama_opts *opts, const int32_t *tokens, int64_t n,
                                 const attend_weights_opts *kept, attend_array *maps, char *err,
                                 size_t errlen) ATTEND_CHECK;

/* ---- Sentence models: WordPiece and BERT ---------------------------------------------------- */

/* WordPiece with a vocabulary file, a piece a line. */
typedef struct attend_wordpiece attend_wordpiece;

/* lower: the vocabulary has lower case without accents alone, and so texts become.  The sentence
 * names the file.  ATTEND_EFORMAT: a line is empty or there twice, or [CLS], [SEP] or [UNK] is
 * missing; ATTEND_EUNSUPPORTED: the library was built without utf8proc. */
ATTEND_API int attend_wordpiece_open(const char *path, int lower, attend_wordpiece **out, char *err,
                                     size_t errlen) ATTEND_CHECK;
ATTEND_API void attend_wordpiece_free(attend_wordpiece *t);
ATTEND_API int32_t attend_wordpiece_size(const attend_wordpiece *t);
/* Tokens of n bytes of text between [CLS] and [SEP], to ids, which has room for n + 2 of them: that
 * is always enough.  Returns how many.  Names of special tokens ("[MASK]") are these tokens; bytes
 * that are no UTF-8 are left out, as control characters are. */
ATTEND_API int64_t attend_wordpiece_encode(const attend_wordpiece *t, const char *text, size_t n,
                                           int32_t *ids);
/* The text of a piece, with its "##"; {NULL, 0} where id is none. */
ATTEND_API attend_str attend_wordpiece_piece(const attend_wordpiece *t, int32_t id);

/* An encoder of the BERT family (Devlin et al. 2019), from a folder with config.json,
 * model.safetensors and vocab.txt, and what sentence-transformers adds.  One thread at a time uses
 * it. */
typedef struct attend_bert attend_bert;

typedef struct attend_bert_opts {
    size_t size;
    const char *device; /* NULL: "auto" */
    int64_t batch;      /* 1024: tokens that go through the graph at once, at most; a whole sequence
                           always does */
    /* Called while texts are embedded; NULL: not. */
    void (*progress)(void *arg, int64_t texts_done, int64_t texts);
    void *progress_arg;
} attend_bert_opts;
ATTEND_API void attend_bert_opts_init(attend_bert_opts *opts);

/* Checks what the files say and every number of the weights, and compiles.  ctx is borrowed until
 * the model is freed.  opts NULL: the defaults.  The sentence names the file.  ATTEND_EFORMAT: keys
 * or tensors are missing or contradict each other; ATTEND_EUNSUPPORTED: another kind of model, or
 * the library was built without jansson or utf8proc. */
ATTEND_API int attend_bert_open(attend_ctx *ctx, const char *folder, const attend_bert_opts *opts,
                                attend_bert **out, char *err, size_t errlen) ATTEND_CHECK;
ATTEND_API void attend_bert_free(attend_bert *m);
/* Channels of a token, and of a text; tokens of a sequence, at most; layers times heads. */
ATTEND_API int64_t attend_bert_width(const attend_bert *m);
ATTEND_API int64_t attend_bert_limit(const attend_bert *m);
ATTEND_API int64_t attend_bert_maps_count(const attend_bert *m);
/* They live as long as the model. */
ATTEND_API const attend_wordpiece *attend_bert_wordpiece(const attend_bert *m);
ATTEND_API const attend_plan *attend_bert_plan(const attend_bert *m);

/* The last layer's output, (starts[n], width), of n sequences side by side: sequence i is tokens
 * [starts[i], starts[i + 1]), starts[0] is 0.  ATTEND_ELIMIT: a sequence is empty or longer than
 * the limit, or they have more tokens than a batch. */
ATTEND_API int attend_bert_run(attend_bert *m, const int32_t *tokens, const int32_t *starts,
                               int64_t n, float *hidden, char *err, size_t errlen) ATTEND_CHECK;

/* Embeddings of n texts, (n, width): the mean over a text's tokens of the last layer's output,
 * divided by its length as a vector (Reimers & Gurevych 2019).  A text of more tokens than the
 * limit is cut.  Texts of like length go through the graph together; a text's numbers do not depend
 * on the others but for rounding. */
ATTEND_API int attend_bert_embed(attend_bert *m, const attend_str *texts, int64_t n, float *out,
                                 char *err, size_t errlen) ATTEND_CHECK;

/* What each token of one sequence looks at: attention weights as attend_llama_maps gives them. */
ATTEND_API int attend_bert_maps(attend_bert *m, const int32_t *tokens, int64_t n,
                                const attend_weights_opts *kept, attend_array *maps, char *err,
                                size_t errlen) ATTEND_CHECK;

/* ---- Sampling ----------------------------------------------------------------------------- */

/* Chooses tokens from logits: softmax of logits / temperature, cut to the top_k most likely, then
 * to the fewest of these that hold top_p of their probability.  Temperature 0 takes the largest
 * logit. Of equal logits the smaller id comes first.  The same logits and seed give the same
 * tokens. */
typedef struct attend_sampler attend_sampler;

typedef struct attend_sampler_opts {
    size_t size;
    float temperature; /* 0 */
    int32_t top_k;     /* 0: all */
    float top_p;       /* 1: all */
    uint64_t seed;     /* 0 */
} attend_sampler_opts;
ATTEND_API void attend_sampler_opts_init(attend_sampler_opts *opts);
/* A sampler over n logits.  opts NULL: the defaults.  ATTEND_EINVAL names the option that is wrong.
 */
ATTEND_API int attend_sampler_new(const attend_sampler_opts *opts, int32_t n, attend_sampler **out,
                                  char *err, size_t errlen) ATTEND_CHECK;
ATTEND_API void attend_sampler_free(attend_sampler *s);
/* The next token.  -inf hides a token.  ATTEND_EINVAL: a logit is NaN or +inf, or all are -inf.
 * Allocates nothing. */
ATTEND_API int32_t attend_sampler_pick(attend_sampler *s, const float *logits, char *err,
                                       size_t errlen) ATTEND_CHECK;

/* ---- ONNX models -------------------------------------------------------------------------- */

/* An ONNX model: one graph of operators with its constants.  The file is read as hostile input. */
typedef struct attend_onnx attend_onnx;

/* Reads path and checks its structure and constants.  The sentence names the file.  ATTEND_EIO: it
 * cannot be read; ATTEND_EFORMAT: it is not ONNX, or damaged; ATTEND_EUNSUPPORTED: it uses element
 * types that are not here, or the library was built without protobuf-c. */
ATTEND_API int attend_onnx_open(const char *path, attend_onnx **out, char *err,
                                size_t errlen) ATTEND_CHECK;
/* The same for a file in memory, which is not needed afterwards; its constants must be inside. */
ATTEND_API int attend_onnx_from_memory(const void *data, size_t bytes, attend_onnx **out, char *err,
                                       size_t errlen) ATTEND_CHECK;
/* Plans of graphs that were built from m must have been freed: constants are its memory. */
ATTEND_API void attend_onnx_free(attend_onnx *m);

/* An input that must be given (constants are none), or an output; the names live as long as m. */
typedef struct attend_onnx_info {
    const char *name;
    attend_type type;
    attend_shape shape; /* rank -1: not said; an extent of -1: any */
} attend_onnx_info;
/* ATTEND_EINVAL where i is not below their number. */
ATTEND_API int attend_onnx_input(const attend_onnx *m, int i, attend_onnx_info *out);
ATTEND_API int attend_onnx_output(const attend_onnx *m, int i, attend_onnx_info *out);

/* Appends the operators of m to g.  inputs[i] belongs to attend_onnx_input i and has its type, and
 * the shape that it has in every run.  One with data is a constant from now on (copied): only such
 * integers may say shapes, lengths of caches and the like.  One without becomes an input of g of
 * the same name, to be bound.  outputs[i] belongs to attend_onnx_output i: type and shape are set
 * here; data is NULL, and it is to be bound under its name, or points to its value, inside m, where
 * that is known now.  What is bound for f64 is f32, and for i64 i32.  Calls for one m take turns.
 * ATTEND_EUNSUPPORTED: an operator, or a use of one, that is not here, named with its node. */
ATTEND_API int attend_onnx_build(attend_onnx *m, attend_graph *g, const attend_array *inputs,
                                 attend_array *outputs, char *err, size_t errlen) ATTEND_CHECK;

/* One tensor from a file of its own (.pb), as ONNX's test data are.  The sentence names the file;
 * out->data is freed with attend_free. */
ATTEND_API int attend_onnx_tensor_read(const char *path, attend_array *out, char *err,
                                       size_t errlen) ATTEND_CHECK;

#ifdef __cplusplus
}
#endif
#endif
