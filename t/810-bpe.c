/* SPDX-License-Identifier: MIT */
/* Byte-level BPE on the tiny vocabulary: words, merges against a plain oracle, named tokens, bytes
 * back to text, and vocabularies with faults. */
#include "gen_gguf.h"
#include "models.h"
#include "os.h"
#include "tap.h"
#include "words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char err[512];

static void *need(void *p)
{
    if (!p)
        bail("no memory");
    return p;
}

/* ---- words ---- */

/* A | after each word. */
static const char *const splits[] = {
    "Hello|,| world|!|",
    "a| b| | c|",
    "don|'t| we|'ll| they|'ve| I|'|M| it|'s| he|'d|'re|",
    "''|s|",
    "x| '|s|",
    "1|2|3|abc|4|5| |6|  |7|",
    "a|1|b|",
    "tab|\t|and|\n|new|\n|\n|line|",
    "two| | spaces|  | more|   |",
    " | leading|",
    " |",
    "   |",
    "\n| x|",
    "a|...| b|?!?|",
    " @#| @|c|",
    "na\xc3\xafve| caf\xc3\xa9|",                 /* letters beyond ASCII */
    "e|\xcc\x81| comb|",                          /* a combining mark is no letter */
    "\xc2\xbd|\xc2\xb2| |\xe2\x85\xa7|\xd9\xa3|", /* numbers of every kind */
    "a|\xc2\xa0|b|\xe3\x80\x80|\xe3\x80\x80|c|",  /* no-break and ideographic spaces */
    "\xe4\xbd\xa0\xe5\xa5\xbd|,|\xe4\xb8\x96|",   /* Chinese */
    "\xf0\x9f\x99\x82\xf0\x9f\x91\xa9|a|",        /* emoji */
    "\xf3\xa0\x80\x81|a|",                        /* a tag: format character */
};

static void test_splits(void)
{
    for (size_t i = 0; i < NELEM(splits); i++) {
        char text[128], got[256];
        size_t n = 0, out = 0;
        for (const char *p = splits[i]; *p; p++)
            if (*p != '|')
                text[n++] = *p;
        for (size_t at = 0; at < n;) {
            size_t length = at_words_next((const unsigned char *)text + at, n - at);
            if (length == 0 || length > n - at)
                bail("a word of %zu bytes of %zu", length, n - at);
            memcpy(got + out, text + at, length);
            out += length;
            got[out++] = '|';
            at += length;
        }
        got[out] = 0;
        is_str(got, splits[i], "words of case %zu", i);
    }
}

/* ---- the tiny vocabulary ---- */

static attend_gguf *model;
static attend_tokenizer *tokenizer;
static unsigned char *model_data;

static void open_model(void)
{
    struct gen_model m;
    size_t size;
    gen_model_init(&m);
    model_data = gen_model_make(&m, &size);
    if (attend_gguf_from_memory(model_data, size, &model, err, sizeof err) < 0 ||
        attend_tokenizer_new(model, &tokenizer, err, sizeof err) < 0)
        bail("%s", err);
}

/* The same, by definition: bytes of a word joined by the first merge of the list that fits, at its
 * leftmost place, until none fits.  A token is known by its bytes. */
struct oracle {
    attend_str left[64], right[64]; /* bytes */
    int merges;
};

static attend_str bytes_of(attend_str name)
{
    for (int32_t id = 4; id < GEN_VOCABULARY; id++) { /* names of the file, in order */
        attend_gguf_array a;
        attend_str s = {"", 0};
        if (attend_gguf_strs(model, "tokenizer.ggml.tokens", &a, err, sizeof err) != 1)
            bail("no tokens");
        for (int32_t skip_to = 0; skip_to <= id; skip_to++)
            attend_gguf_array_next(&a, &s);
        if (s.n == name.n && memcmp(s.s, name.s, s.n) == 0)
            return attend_tokenizer_piece(tokenizer, id);
    }
    bail("a merge of no token");
}

static void read_oracle(struct oracle *o)
{
    attend_gguf_array a;
    attend_str s;
    o->merges = 0;
    if (attend_gguf_strs(model, "tokenizer.ggml.merges", &a, err, sizeof err) != 1)
        bail("no merges");
    while (attend_gguf_array_next(&a, &s)) {
        size_t left = (size_t)((const char *)memchr(s.s, ' ', s.n) - s.s);
        o->left[o->merges] = bytes_of((attend_str){s.s, left});
        o->right[o->merges++] = bytes_of((attend_str){s.s + left + 1, s.n - left - 1});
    }
}

static bool is_piece(const char *p, size_t n, attend_str piece)
{
    return n == piece.n && memcmp(p, piece.s, n) == 0;
}

static int32_t id_of(const char *p, size_t n)
{
    for (int32_t id = 4; id < GEN_VOCABULARY; id++)
        if (is_piece(p, n, attend_tokenizer_piece(tokenizer, id)))
            return id;
    bail("a piece of no token");
}

/* ends[i]: a token ends after byte i. */
static int64_t oracle_word(const struct oracle *o, const char *p, size_t n, int32_t *ids)
{
    bool end[512];
    int64_t count = 0;
    memset(end, true, sizeof end);
    for (int m = 0; m < o->merges; m++) {
        for (size_t a = 0, b, c; a < n; a = b) {
            for (b = a + 1; !end[b - 1]; b++)
                ;
            for (c = b; c < n && !end[c]; c++)
                ;
            if (c < n && is_piece(p + a, b - a, o->left[m]) &&
                is_piece(p + b, c + 1 - b, o->right[m])) {
                end[b - 1] = false;
                m = -1; /* begin again with the first */
                break;
            }
        }
    }
    for (size_t a = 0, b; a < n; a = b) {
        for (b = a + 1; !end[b - 1]; b++)
            ;
        ids[count++] = id_of(p + a, b - a);
    }
    return count;
}

static void test_random(void)
{
    static const char *const bits[] = {"hello",    " the", "world", " wor", "ld",  "and",
                                       " and of",  "he",   "t",     "\n\n", "---", "    ",
                                       "\xc3\xa9", "ing",  " can",  "'s",   "1",   "\xe2\x82\xac",
                                       "in",       " a",   "be"};
    struct oracle oracle;
    uint64_t seed = 810;
    int wrong = 0, back = 0;
    read_oracle(&oracle);
    for (int round = 0; round < 500; round++) {
        char text[256];
        int32_t got[256], want[256];
        int64_t wanted = 0;
        size_t n = 0, from = 0;
        for (uint64_t k = gen_random(&seed) % 20; k > 0; k--) {
            const char *bit = bits[gen_random(&seed) % NELEM(bits)];
            memcpy(text + n, bit, strlen(bit));
            n += strlen(bit);
        }
        int64_t count = attend_tokenizer_encode(tokenizer, text, n, 0, got, err, sizeof err);
        for (size_t at = 0; at < n; at += from) {
            from = at_words_next((const unsigned char *)text + at, n - at);
            wanted += oracle_word(&oracle, text + at, from, want + wanted);
        }
        wrong += count != wanted || memcmp(got, want, (size_t)wanted * sizeof *want) != 0;
        size_t at = 0;
        for (int64_t i = 0; i < count; i++) {
            attend_str piece = attend_tokenizer_piece(tokenizer, got[i]);
            if (at + piece.n > n || memcmp(text + at, piece.s, piece.n) != 0)
                break;
            at += piece.n;
        }
        back += at == n;
    }
    is_int(wrong, 0, "500 texts give the tokens of the oracle");
    is_int(back, 500, "whose pieces are the text");
}

static void is_tokens(const char *text, int special, const int32_t *want, int64_t count)
{
    int32_t ids[64];
    int64_t n =
        attend_tokenizer_encode(tokenizer, text, strlen(text), special, ids, err, sizeof err);
    is_int(n, count, "\"%s\": number of tokens", text);
    for (int64_t i = 0; i < n && i < count; i++)
        is_int(ids[i], want[i], "token %d", (int)i);
}
#define BYTE(c) (4 + (unsigned char)(c))
#define IS_TOKENS(text, special, ...)                                                              \
    is_tokens(text, special, (const int32_t[]){__VA_ARGS__},                                       \
              (int64_t)(sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)))

static void test_named(void)
{
    enum { HE = 260, THE = 270 };
    IS_TOKENS("<|im_start|>x<|im_end|>", 1, 1, BYTE('x'), 2);
    IS_TOKENS("<|im_end|>", 0, BYTE('<'), BYTE('|'), BYTE('i'), BYTE('m'), BYTE('_'), 269,
              BYTE('d'), BYTE('|'), BYTE('>'));
    IS_TOKENS("<tool><tool", 0, 3, BYTE('<'), BYTE('t'), BYTE('o'), BYTE('o'), BYTE('l'));
    IS_TOKENS("<|im_start|><|im_start|>", 1, 1, 1);
    IS_TOKENS(" the<tool> the", 1, THE, 3, THE);
    is_int(attend_tokenizer_encode(tokenizer, "", 0, 1, NULL, err, sizeof err), 0,
           "no text has no tokens");
    is_int(attend_tokenizer_size(tokenizer), GEN_VOCABULARY, "the size of the vocabulary");
    is_int(attend_tokenizer_bos(tokenizer), -1, "no start token is wanted");
    is_int(attend_tokenizer_kind(tokenizer, 0), ATTEND_TOKEN_END, "end of text ends");
    is_int(attend_tokenizer_kind(tokenizer, 1), ATTEND_TOKEN_CONTROL, "a start of turn does not");
    is_int(attend_tokenizer_kind(tokenizer, 2), ATTEND_TOKEN_END, "an end of turn ends");
    is_int(attend_tokenizer_kind(tokenizer, 3), ATTEND_TOKEN_TEXT, "a user's token is text");
    is_int(attend_tokenizer_kind(tokenizer, HE), ATTEND_TOKEN_TEXT, "a word is text");
    is_int(attend_tokenizer_kind(tokenizer, GEN_VOCABULARY), ATTEND_EINVAL, "beyond is nothing");
    is_int(attend_tokenizer_kind(tokenizer, -1), ATTEND_EINVAL, "below too");
    ok(!attend_tokenizer_piece(tokenizer, GEN_VOCABULARY).s &&
           !attend_tokenizer_piece(tokenizer, -1).s,
       "and has no piece");
}

static void test_long(void)
{
    enum { LENGTH = 200000 };
    char *text = need(malloc(LENGTH));
    int32_t *ids = need(malloc(LENGTH * sizeof *ids));
    static const char *const patterns[] = {"a", "hello", "\xc3\xa9", "hello world, and 1 ", " "};
    for (size_t k = 0; k < NELEM(patterns); k++) {
        size_t unit = strlen(patterns[k]), n = LENGTH / unit * unit, back = 0;
        for (size_t i = 0; i < n; i++)
            text[i] = patterns[k][i % unit];
        int64_t start = at_os_now();
        int64_t count = attend_tokenizer_encode(tokenizer, text, n, 1, ids, err, sizeof err);
        double seconds = (double)(at_os_now() - start) * 1e-9;
        for (int64_t i = 0; i < count; i++)
            back += attend_tokenizer_piece(tokenizer, ids[i]).n;
        is_int((int64_t)back, (int64_t)n, "%zu bytes of \"%s\" become %d tokens", n, patterns[k],
               (int)count);
        ok(seconds < 20, "in %.3f s (squared time would take minutes)", seconds);
    }
    free(ids);
    free(text);
}

/* ---- UTF-8 ---- */

static void test_utf8(void)
{
    static const struct {
        const char *text;
        const char *words;
    } bad[] = {
        {"abc\xff",              "byte 3 of 4 is 0xff" },
        {"\x80",                 "byte 0 of 1 is 0x80" },
        {"a\xc3",                "byte 1 of 2 is 0xc3" },
        {"a\xe2\x82",            "character is cut off"},
        {"\xc0\x80",             "byte 0 of 2 is 0xc0" },
        {"\xe0\x9f\xbf",         "byte 0 of 3 is 0xe0" },
        {"\xed\xa0\x80",         "byte 0 of 3 is 0xed" },
        {"\xf4\x90\x80\x80",     "byte 0 of 4 is 0xf4" },
        {"\xf0\x8f\xbf\xbf",     "byte 0 of 4"         },
        {"<|im_start|>\xe2(",    "byte 12 of 14"       },
        {"\xf8\x88\x80\x80\x80", "byte 0 of 5"         },
    };
    int32_t ids[64];
    for (size_t i = 0; i < NELEM(bad); i++) {
        is_int(attend_tokenizer_encode(tokenizer, bad[i].text, strlen(bad[i].text), 1, ids, err,
                                       sizeof err),
               ATTEND_EINVAL, "text %zu is not UTF-8", i);
        ok(strstr(err, bad[i].words) != NULL, "and says: %s", err);
    }
}

static void test_stream(void)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain",                                      "plain"                               },
        {"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x99\x82.",
         "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x99\x82."                                        },
        {"\xff",                                       "\xef\xbf\xbd"                        },
        {"a\xe2\x82z",                                 "a\xef\xbf\xbdz"                      },
        {"\xe2\xe2\x82\xac",                           "\xef\xbf\xbd\xe2\x82\xac"            },
        {"\xc0\xaf",                                   "\xef\xbf\xbd\xef\xbf\xbd"            },
        {"\xed\xa0\x80",                               "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf0\x9f\x99",                               "\xef\xbf\xbd"                        },
        {"\xf0\x80",                                   "\xef\xbf\xbd\xef\xbf\xbd"            },
    };
    for (size_t i = 0; i < NELEM(cases); i++)
        for (size_t step = 1; step <= 4; step++) {
            attend_utf8 u = {0};
            char out[128];
            size_t n = 0, size = strlen(cases[i].in);
            for (size_t at = 0; at < size; at += step)
                n += attend_utf8_push(&u, cases[i].in + at, size - at < step ? size - at : step,
                                      out + n);
            n += attend_utf8_push(&u, NULL, 0, out + n);
            out[n] = 0;
            is_str(out, cases[i].out, "stream %zu in pieces of %zu", i, step);
        }
    attend_utf8 u = {0};
    char out[32];
    is_int((int64_t)attend_utf8_push(&u, "\xf0\x9f\x99", 3, out), 0, "an unfinished one is held");
    is_int((int64_t)attend_utf8_push(&u, "\x82", 1, out), 4, "until it is finished");
}

/* ---- chat ---- */

static attend_gguf *template_file(const char *text, unsigned char **data)
{
    struct gen_file f;
    attend_gguf *g;
    size_t size;
    gen_init(&f);
    gen_key_u32(&f, "x", 0);
    if (text)
        gen_key_str(&f, "tokenizer.chat_template", text);
    *data = gen_finish(&f, &size);
    if (attend_gguf_from_memory(*data, size, &g, err, sizeof err) < 0)
        bail("%s", err);
    return g;
}

static void test_chat(void)
{
    static const struct {
        const char *template, *user,
            *out; /* out NULL: refused, with words of the sentence in user */
    } cases[] = {
        {"{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
         "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}",     " Hi ",                              "<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n"},
        {"{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + "
         "m['content'] | trim + '<|eot_id|>' }}{% endfor %}",          " \nHi you\t",
         "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi "
         "you<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"                                                                                                       },
        {"<|start_header_id|>system ... Cutting Knowledge Date: December 2023", "Llama 3.1",                         NULL                                                       },
        {"{{ '<|im_start|>system\nYou are Qwen' }}",                            "ChatML with a system text",         NULL                                                       },
        {"{{ '[INST] ' + message['content'] + ' [/INST]' }}",                   "Llama 2 or Mistral",                NULL                                                       },
        {"<start_of_turn>",                                                     "Gemma",                             NULL                                                       },
        {"{{ something_new }}",                                                 "starts with '{{ something_new }}'", NULL                                                       },
        {"",                                                                    "no known kind",                     NULL                                                       },
        {NULL,                                                                  "has no chat template",              NULL                                                       },
    };
    char *text;
    int64_t n = attend_chat_wrap(model, "Hi", 2, &text, err, sizeof err);
    static const char want[] = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, "
                               "trained by Hugging Face<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
                               "<|im_start|>assistant\n";
    is_int(n, (int64_t)strlen(want), "SmolLM2's template is known");
    is_str(text, want, "and gives its own system text");
    attend_free(text);
    for (size_t i = 0; i < NELEM(cases); i++) {
        unsigned char *data;
        attend_gguf *g = template_file(cases[i].template, &data);
        n = attend_chat_wrap(g, cases[i].user, strlen(cases[i].user), &text, err, sizeof err);
        if (cases[i].out) {
            is_str(text, cases[i].out, "template %zu", i);
        } else {
            is_int(n, ATTEND_EUNSUPPORTED, "template %zu is refused", i);
            ok(!text && strstr(err, cases[i].user), "by name: %s", err);
        }
        attend_free(text);
        attend_gguf_free(g);
        free(data);
    }
}

/* ---- faults ---- */

/* A small vocabulary whose parts a fault replaces; NULL: the key is left out. */
struct vocabulary {
    const char *model, *pre;
    const char *tokens[6];
    uint64_t token_count;
    int32_t types[6];
    uint64_t type_count;
    const char *merges[3];
    uint64_t merge_count;
    int64_t eos, bos, add_bos;
};
static const struct vocabulary sound = {
    "gpt2",
    "smollm",
    {"a",    "b",   "c", "ab", "abc", "<x>"},
    6,
    {1, 1, 1,    1, 1, 3},
    6,
    {"a b",     "ab c",         ""       },
    2,
    5,
    5,
    1
};

static int make(const struct vocabulary *v, attend_tokenizer **t)
{
    struct gen_file f;
    attend_gguf *g;
    size_t size;
    gen_init(&f);
    if (v->model)
        gen_key_str(&f, "tokenizer.ggml.model", v->model);
    if (v->pre)
        gen_key_str(&f, "tokenizer.ggml.pre", v->pre);
    if (v->token_count != UINT64_MAX)
        gen_key_strs(&f, "tokenizer.ggml.tokens", v->tokens, v->token_count);
    if (v->type_count != UINT64_MAX)
        gen_key_i32s(&f, "tokenizer.ggml.token_type", v->types, v->type_count);
    if (v->merge_count != UINT64_MAX)
        gen_key_strs(&f, "tokenizer.ggml.merges", v->merges, v->merge_count);
    gen_key_u32(&f, "tokenizer.ggml.eos_token_id", (uint32_t)v->eos);
    if (v->bos >= 0)
        gen_key_u32(&f, "tokenizer.ggml.bos_token_id", (uint32_t)v->bos);
    gen_key_u32(&f, "tokenizer.ggml.add_bos_token", (uint32_t)v->add_bos);
    unsigned char *data = gen_finish(&f, &size);
    if (attend_gguf_from_memory(data, size, &g, err, sizeof err) < 0)
        bail("%s", err);
    int status = attend_tokenizer_new(g, t, err, sizeof err);
    attend_gguf_free(g);
    free(data);
    return status;
}

static void refuse(struct vocabulary v, int status, const char *words)
{
    attend_tokenizer *t;
    is_int(make(&v, &t), status, "a vocabulary is refused");
    ok(!t && strstr(err, words), "and says: %s", err);
    attend_tokenizer_free(t);
}

static void test_faults(void)
{
    struct vocabulary v = sound;
    attend_tokenizer *t;
    int32_t ids[8];
    is_int(make(&v, &t), 0, "a sound small vocabulary");
    is_int(attend_tokenizer_bos(t), 5, "its start token");
    is_int(attend_tokenizer_encode(t, "abcab<x>", 8, 1, ids, err, sizeof err), 3, "three tokens");
    ok(ids[0] == 4 && ids[1] == 3 && ids[2] == 5, "the right ones");
    is_int(attend_tokenizer_encode(t, "xabz", 4, 1, ids, err, sizeof err), 1,
           "bytes that it lacks give no token");
    is_int(ids[0], 3, "and the others do");
    attend_tokenizer_free(t);
    v.type_count = UINT64_MAX;
    is_int(make(&v, &t), 0, "types may be missing");
    attend_tokenizer_free(t);

    v = sound, v.model = "llama";
    refuse(v, ATTEND_EUNSUPPORTED, "tokenizer.ggml.model 'llama' is not supported");
    v = sound, v.model = NULL;
    refuse(v, ATTEND_EFORMAT, "no key 'tokenizer.ggml.model'");
    v = sound, v.pre = "llama-bpe";
    refuse(v, ATTEND_EUNSUPPORTED, "tokenizer.ggml.pre 'llama-bpe'");
    v = sound, v.token_count = UINT64_MAX;
    refuse(v, ATTEND_EFORMAT, "no key 'tokenizer.ggml.tokens'");
    v = sound, v.token_count = 0;
    refuse(v, ATTEND_EFORMAT, "has 0 elements");
    v = sound, v.tokens[2] = "";
    refuse(v, ATTEND_EFORMAT, "token 2 is empty");
    v = sound, v.tokens[4] = "b";
    refuse(v, ATTEND_EFORMAT, "tokens 1 and 4 are both 'b'");
    v = sound, v.type_count = 5;
    refuse(v, ATTEND_EFORMAT, "5 elements for 6 tokens");
    v = sound, v.types[1] = 0;
    refuse(v, ATTEND_EFORMAT, "token 1 has type 0");
    v = sound, v.types[1] = 7;
    refuse(v, ATTEND_EFORMAT, "token 1 has type 7");
    v = sound, v.merge_count = UINT64_MAX;
    refuse(v, ATTEND_EFORMAT, "no key 'tokenizer.ggml.merges'");
    v = sound, v.merges[1] = "abc";
    refuse(v, ATTEND_EFORMAT, "merge 1, 'abc', is not two tokens");
    v = sound, v.merges[1] = " ";
    refuse(v, ATTEND_EFORMAT, "is not two tokens");
    v = sound, v.merges[1] = "ab ";
    refuse(v, ATTEND_EFORMAT, "not in the vocabulary");
    v = sound, v.merges[1] = "ab d";
    refuse(v, ATTEND_EFORMAT, "merge 1, 'ab d', is of or makes a token that is not");
    v = sound, v.merges[1] = "b a";
    refuse(v, ATTEND_EFORMAT, "not in the vocabulary");
    v = sound, v.merges[1] = "a b";
    refuse(v, ATTEND_EFORMAT, "merges 0 and 1 are both 'a b'");
    v = sound, v.eos = 6;
    refuse(v, ATTEND_EFORMAT, "eos_token_id is 6, but there are 6 tokens");
    v = sound, v.bos = -1;
    refuse(v, ATTEND_EFORMAT, "add_bos_token is set");
}

int main(void)
{
    if (!at_words_known()) {
        attend_tokenizer *t;
        is_int(make(&sound, &t), ATTEND_EUNSUPPORTED, "without utf8proc there is no tokenizer");
        ok(!t && strstr(err, "utf8proc"), "which is said: %s", err);
        skip("this library was built without utf8proc: what tokenizers do");
        return done_testing();
    }
    test_splits();
    open_model();
    test_random();
    test_named();
    test_long();
    test_utf8();
    test_stream();
    test_chat();
    test_faults();
    attend_tokenizer_free(tokenizer);
    attend_gguf_free(model);
    free(model_data);
    return done_testing();
}
