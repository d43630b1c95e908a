/* SPDX-License-Identifier: MIT */
/* The tokenizer and chat template of a real model against ids that other programs gave
 * (ATTEND_FIXTURES/smollm2, for the model ATTEND_MODEL). */
#include "env.h"
#include "models.h"
#include "os.h"
#include "tap.h"
#include "words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONG = 4096 }; /* bytes of a text, at most; also tokens */

static char err[512];
static attend_gguf *model;
static attend_tokenizer *tokenizer;

/* ---- enough of JSON for these files ---- */

/* A file as a string. */
static char *load(const char *folder, const char *name)
{
    char path[1024];
    struct at_os_map map;
    snprintf(path, sizeof path, "%s/smollm2/%s", folder, name);
    if (at_os_map_file(&map, path, err, sizeof err) < 0)
        bail("%s", err);
    char *text = malloc(map.size + 1);
    if (!text)
        bail("no memory");
    memcpy(text, map.data, map.size);
    text[map.size] = 0;
    at_os_unmap(&map);
    return text;
}

/* Behind the next `"name": `, or NULL. */
static const char *find(const char *at, const char *name)
{
    char key[64];
    snprintf(key, sizeof key, "\"%s\": ", name);
    at = at ? strstr(at, key) : NULL;
    return at ? at + strlen(key) : NULL;
}

static int64_t read_ids(const char *at, int32_t *ids)
{
    int64_t n = 0;
    for (char *end; *at != ']' && n < LONG; at = end) {
        at += strspn(at, "[, \n");
        ids[n] = (int32_t)strtol(at, &end, 10);
        n += end != at;
        if (end == at && *at != ']')
            bail("no list of numbers: %.20s", at);
    }
    return n;
}

static size_t write_utf8(unsigned long c, char *out)
{
    static const unsigned first[] = {0, 0xc0, 0xe0, 0xf0};
    int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    for (int i = more; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(first[more] | c);
    return (size_t)more + 1;
}

static unsigned long read_hex(const char *at, int digits)
{
    char text[8] = "";
    memcpy(text, at, (size_t)digits);
    return strtoul(text, NULL, 16);
}

/* The string that starts at a quote. */
static size_t read_string(const char *at, char *out)
{
    size_t n = 0;
    for (at++; *at && *at != '"' && n < LONG - 4; at++) {
        if (*at != '\\') {
            out[n++] = *at;
        } else if (*++at == 'u') {
            unsigned long c = read_hex(at + 1, 4);
            if (c >= 0xd800 && c < 0xdc00) { /* the first of a pair \uD83D\uDE42 */
                c = 0x10000 + ((c & 0x3ff) << 10) + (read_hex(at + 7, 4) & 0x3ff);
                at += 6;
            }
            at += 4;
            n += write_utf8(c, out + n);
        } else {
            out[n++] = *at == 'n' ? '\n' : *at == 't' ? '\t' : *at == 'r' ? '\r' : *at;
        }
    }
    return n;
}

/* ---- comparisons ---- */

static void is_ids(const char *what, const char *text, size_t n, const int32_t *want, int64_t count)
{
    int32_t ids[LONG];
    int64_t got = attend_tokenizer_encode(tokenizer, text, n, 1, ids, err, sizeof err);
    is_int(got, count, "number of tokens of %s", what);
    if (got == count)
        is_mem(ids, want, (size_t)count * sizeof *ids, "which are those of the reference");
}

static void is_text(const int32_t *ids, int64_t count, const char *want, size_t n)
{
    char out[LONG];
    size_t at = 0;
    for (int64_t i = 0; i < count; i++) {
        attend_str piece = attend_tokenizer_piece(tokenizer, ids[i]);
        if (piece.s && at + piece.n <= LONG) {
            memcpy(out + at, piece.s, piece.n);
            at += piece.n;
        }
    }
    ok(at == n && memcmp(out, want, n) == 0, "and back to the text");
}

static void test_cases(const char *folder)
{
    char *all = load(folder, "tokenizer.json");
    int count = 0;
    for (const char *at = all; (at = find(at, "ids")); count++) {
        int32_t want[LONG];
        char text[LONG];
        int64_t tokens = read_ids(at, want);
        at = find(at, "detokenized_hex");
        size_t n = at ? strcspn(at + 1, "\"") / 2 : 0;
        for (size_t i = 0; i < n && i < LONG; i++)
            text[i] = (char)read_hex(at + 1 + 2 * i, 2);
        char what[32];
        snprintf(what, sizeof what, "text %d", count);
        is_ids(what, text, n, want, tokens);
        is_text(want, tokens, text, n);
    }
    ok(count >= 33, "%d texts", count);
    free(all);
}

static void test_prompt(const char *folder, const char *name)
{
    char path[128], text[LONG], user[LONG];
    int32_t want[LONG];
    snprintf(path, sizeof path, "%s/case.json", name);
    char *all = load(folder, path);
    const char *prompt = find(all, "prompt"), *ids = find(prompt, "ids");
    if (!ids || !find(prompt, "text") || !find(prompt, "user_text") || !find(prompt, "chat"))
        bail("%s is of another form", path);
    size_t n = read_string(find(prompt, "text"), text);
    size_t said = read_string(find(prompt, "user_text"), user);
    text[n] = 0;
    is_ids(name, text, n, want, read_ids(ids, want));
    if (strncmp(find(prompt, "chat"), "true", 4) == 0) {
        char *wrapped = NULL;
        is_int(attend_chat_wrap(model, user, said, &wrapped, err, sizeof err), (int64_t)n,
               "%s is wrapped", name);
        is_str(wrapped, text, "as the reference did");
        attend_free(wrapped);
    }
    free(all);
}

int main(void)
{
    static const char *const prompts[] = {"p1_chat_capital", "p2_raw_story",    "p3_chat_code",
                                          "p4_raw_digits",   "p5_chat_unicode", "p6_raw_long"};
    const char *folder = at_env(AT_ENV_FIXTURES), *path = at_env(AT_ENV_MODEL);
    if (!folder || !path)
        skip_all("%s is not set", at_env_name(folder ? AT_ENV_MODEL : AT_ENV_FIXTURES));
    if (!at_words_known())
        skip_all("this library was built without utf8proc");
    if (attend_gguf_open(path, &model, err, sizeof err) < 0 ||
        attend_tokenizer_new(model, &tokenizer, err, sizeof err) < 0)
        bail("%s", err);
    test_cases(folder);
    for (size_t i = 0; i < NELEM(prompts); i++)
        test_prompt(folder, prompts[i]);
    attend_tokenizer_free(tokenizer);
    attend_gguf_free(model);
    return done_testing();
}
