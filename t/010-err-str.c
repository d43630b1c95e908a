/* SPDX-License-Identifier: MIT */
/* Statuses and sentences, checked allocation, growable text. */
#include "tap.h"
#include "core.h"
#include "os.h"

#include <stdlib.h>
#include <string.h>

static void test_err(void)
{
    is_str(attend_status_name(ATTEND_OK), "ATTEND_OK", "the name of success");
    is_str(attend_status_name(ATTEND_EINVAL), "ATTEND_EINVAL", "the name of -1");
    is_str(attend_status_name(ATTEND_EDEVICE), "ATTEND_EDEVICE", "the name of the last status");
    is_str(attend_status_name(-10), "ATTEND_E?", "no status: -10");
    is_str(attend_status_name(1), "ATTEND_E?", "no status: 1");
    is_str(attend_status_name(INT32_MIN), "ATTEND_E?", "no status: the smallest int");

    struct at_err e = {0};
    is_int(at_fail(&e, ATTEND_EIO, "first %d", 1), ATTEND_EIO, "at_fail returns the status");
    is_int(at_fail(&e, ATTEND_EINVAL, "second"), ATTEND_EIO, "the first error stays");
    is_str(e.text, "first 1", "and so does its sentence");
    at_err_clear(&e);
    is_int(e.status, 0, "a cleared error has no status");
    is_str(e.text, "", "nor a sentence");

    char text[8];
    is_int(at_say(text, sizeof text, ATTEND_EIO, "abcdefghij"), ATTEND_EIO, "at_say returns");
    is_str(text, "abcdefg", "a long sentence is cut");
    at_say(text, sizeof text, ATTEND_EIO, "abcde\xc3\xa9z");
    is_str(text, "abcde\xc3\xa9", "not inside a character: one that fits stays");
    at_say(text, sizeof text, ATTEND_EIO, "abcdef\xc3\xa9z");
    is_str(text, "abcdef", "not inside a character: one that does not fit goes");
    is_int(at_say(NULL, 0, ATTEND_EIO, "nowhere"), ATTEND_EIO, "at_say without a buffer");
}

/* An allocator that counts and that can be made to fail. */
struct counter {
    int64_t blocks, bytes;
    bool refuse;
};

static void *count_alloc(void *arg, size_t bytes, size_t align)
{
    struct counter *c = arg;
    if (c->refuse)
        return NULL;
    c->blocks++;
    c->bytes += (int64_t)bytes;
    return at_os_alloc(align, bytes);
}

static void count_free(void *arg, void *p, size_t bytes)
{
    struct counter *c = arg;
    c->blocks--;
    c->bytes -= (int64_t)bytes;
    at_os_free(p);
}

static void test_mem(attend_ctx *ctx, const char *whose)
{
    bool aligned = true, kept = true;
    static const int64_t sizes[] = {0, 1, 63, 64, 65, 4096, (4 << 20) - 64, 4 << 20, 9 << 20};
    char *p[NELEM(sizes)];
    for (size_t i = 0; i < NELEM(sizes); i++) {
        p[i] = at_alloc(ctx, sizes[i]);
        aligned = aligned && p[i] && (uintptr_t)p[i] % AT_ALIGN == 0;
        if (p[i])
            memset(p[i], (int)i, (size_t)sizes[i]);
    }
    ok(aligned, "%s: blocks are aligned, also of 0 bytes and of many", whose);
    for (size_t i = 0; i < NELEM(sizes); i++) {
        for (int64_t k = 0; p[i] && k < sizes[i]; k++)
            kept = kept && p[i][k] == (char)i;
        at_free(ctx, p[i]);
    }
    ok(kept, "%s: blocks do not overlap", whose);
    at_free(ctx, NULL);
    ok(!at_alloc(ctx, -1), "%s: no block of -1 bytes", whose);
    ok(!at_calloc(ctx, INT64_MAX / 2, 3), "%s: no block whose size overflows", whose);

    char *zeros = at_calloc(ctx, 1000, 1), *copy = at_strdup(ctx, "text");
    ok(zeros && !zeros[0] && !memcmp(zeros, zeros + 1, 999), "%s: at_calloc clears", whose);
    is_str(copy, "text", "%s: at_strdup copies", whose);
    at_free(ctx, zeros);
    at_free(ctx, copy);

    int *array = NULL, cap = 0, sum = 0;
    for (int n = 0; n < 1000; n++)
        if (at_grow(ctx, (void **)&array, &cap, n, sizeof *array))
            array[n] = n;
    for (int n = 0; array && n < 1000; n++)
        sum += array[n];
    is_int(sum, 499500, "%s: a growing array keeps its elements", whose);
    at_free(ctx, array);
}

static void test_refusal(attend_ctx *ctx, struct counter *c)
{
    is_int(c->blocks, 0, "every block was given back");
    is_int(c->bytes, 0, "with the size that it was asked with");
    int *array = NULL, cap = 0;
    bool first = at_grow(ctx, (void **)&array, &cap, 0, sizeof *array);
    c->refuse = true;
    ok(!at_alloc(ctx, 1) && !at_calloc(ctx, 1, 1) && !at_strdup(ctx, ""), "refusals are passed on");
    int *before = array;
    ok(first && !at_grow(ctx, (void **)&array, &cap, cap, sizeof *array) && array == before,
       "an array that cannot grow stays as it was");
    c->refuse = false;
    at_free(ctx, array);
}

static void test_sizes(void)
{
    is_int(at_mul_size(3, 5), 15, "3 * 5");
    is_int(at_mul_size(0, INT64_MAX), 0, "0 * max");
    is_int(at_mul_size(INT64_MAX, 0), 0, "max * 0");
    is_int(at_mul_size(INT64_MAX, 1), INT64_MAX, "max * 1");
    is_int(at_mul_size(INT64_MAX / 2 + 1, 2), -1, "a product that overflows");
    is_int(at_mul_size(-1, 2), -1, "a negative factor");
    is_int(at_mul_size(2, -1), -1, "another");
}

static void test_str(void)
{
    struct at_str s = {0};
    at_str_add(&s, "%s", "");
    is_str(s.text, "", "empty text is text");
    for (int i = 0; i < 1000; i++)
        at_str_add(&s, "%d,", i % 10);
    is_int((int64_t)s.len, 2000, "text grows");
    is_int((int64_t)strlen(s.text), 2000, "and is terminated");
    ok(!s.failed, "and did not fail");
    at_str_add(&s, "%*s", 40 << 20, "");
    ok(!s.failed, "40 MiB fit");
    at_str_add(&s, "%*s", 40 << 20, "");
    ok(s.failed, "80 MiB do not");
    size_t len = s.len;
    at_str_add(&s, "x");
    ok(s.len == len && strlen(s.text) == len, "text that failed stays as it was");
    attend_free(s.text);

    struct at_str json = {0};
    at_str_json(&json, "a\"b\\c\n\t\xc3\xa9 \xf0\x9f\x98\x80 \xff \xed\xa0\x80 \xc3");
    is_str(
        json.text,
        "\"a\\\"b\\\\c\\n\\u0009\xc3\xa9 \xf0\x9f\x98\x80 \\ufffd \\ufffd\\ufffd\\ufffd \\ufffd\"",
        "JSON strings are escaped and always valid UTF-8");
    attend_free(json.text);
}

int main(void)
{
    test_err();
    attend_ctx libc = {0};
    test_mem(&libc, "the C library's");
    struct counter c = {0};
    attend_ctx mine = {
        .mem = {count_alloc, count_free, &c}
    };
    test_mem(&mine, "the caller's");
    test_refusal(&mine, &c);
    test_sizes();
    test_str();
    return done_testing();
}
