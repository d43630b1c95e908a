/* SPDX-License-Identifier: MIT */
/* The GGUF reader: what a good file holds, and that every bad one is refused with a sentence. */
#include "gen_gguf.h"
#include "models.h"
#include "os.h"
#include "tap.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char err[512];

static attend_gguf *open_memory(const unsigned char *data, size_t size)
{
    attend_gguf *g;
    if (attend_gguf_from_memory(data, size, &g, err, sizeof err) < 0)
        bail("a good file was refused: %s", err);
    return g;
}

/* ---- good files ---- */

static void test_values(void)
{
    struct gen_file f;
    gen_init(&f);
    f.version = 2;
    gen_key(&f, "u8", GEN_U8);
    gen_put(&f.keys, "\xff", 1);
    gen_key(&f, "i8", GEN_I8);
    gen_put(&f.keys, "\xff", 1);
    gen_key(&f, "u16", GEN_U16);
    gen_put(&f.keys, "\xfe\xff", 2);
    gen_key(&f, "i16", GEN_I16);
    gen_put(&f.keys, "\xfe\xff", 2);
    gen_key_u32(&f, "u32", 0xfffffffdu);
    gen_key(&f, "i32", GEN_I32);
    gen_u32(&f.keys, 0xfffffffdu);
    gen_key(&f, "u64", GEN_U64);
    gen_u64(&f.keys, UINT64_MAX / 2);
    gen_key(&f, "u64 high", GEN_U64);
    gen_u64(&f.keys, UINT64_MAX);
    gen_key(&f, "i64", GEN_I64);
    gen_u64(&f.keys, UINT64_MAX);
    gen_key(&f, "bool", GEN_BOOL);
    gen_put(&f.keys, "\x01", 1);
    gen_key_f32(&f, "f32", 0.5f);
    gen_key(&f, "f64", GEN_F64);
    gen_put(&f.keys, &(double){0.1}, 8);
    gen_key_str(&f, "str", "hello");
    gen_key_strs(&f, "strs", (const char *const[]){"a", "", "bc"}, 3);
    gen_key_i32s(&f, "ints", (const int32_t[]){-1, 7}, 2);
    size_t size;
    unsigned char *data = gen_finish(&f, &size);
    attend_gguf *g = open_memory(data, size);

    static const struct {
        const char *key;
        int64_t value;
    } ints[] = {
        {"u8",   255       },
        {"i8",   -1        },
        {"u16",  65534     },
        {"i16",  -2        },
        {"u32",  4294967293},
        {"i32",  -3        },
        {"u64",  INT64_MAX },
        {"i64",  -1        },
        {"bool", 1         }
    };
    for (size_t i = 0; i < NELEM(ints); i++) {
        int64_t v = 99;
        double d = 99;
        is_int(attend_gguf_int(g, ints[i].key, &v, err, sizeof err), 1, "%s is there", ints[i].key);
        is_int(v, ints[i].value, "%s as an integer", ints[i].key);
        is_int(attend_gguf_float(g, ints[i].key, &d, err, sizeof err), 1, "%s is there",
               ints[i].key);
        is_float(d, (double)ints[i].value, 0, "%s as a number", ints[i].key);
    }
    int64_t v = 99;
    double d = 99;
    is_int(attend_gguf_int(g, "none", &v, err, sizeof err), 0, "an absent key is not there");
    is_int(v, 99, "and leaves the default");
    is_int(attend_gguf_int(g, "u64 high", &v, err, sizeof err), ATTEND_EFORMAT,
           "an integer above 2^63 is refused");
    is_int(attend_gguf_int(g, "f32", &v, err, sizeof err), ATTEND_EFORMAT, "f32 is no integer");
    is_str(err, "key 'f32' has type f32 where an integer is needed", "and the sentence says so");
    is_int(attend_gguf_int(g, "ints", &v, err, sizeof err), ATTEND_EFORMAT, "an array neither");
    is_str(err, "key 'ints' has type array of i32 where an integer is needed", "and says so");
    is_int(v, 99, "a refusal leaves the default");
    is_int(attend_gguf_float(g, "f32", &d, err, sizeof err), 1, "f32 is there");
    is_float(d, 0.5, 0, "with its value");
    is_int(attend_gguf_float(g, "f64", &d, err, sizeof err), 1, "f64 is there");
    is_float(d, 0.1, 0, "with its value");
    is_int(attend_gguf_float(g, "str", &d, err, sizeof err), ATTEND_EFORMAT,
           "a string is no number");

    attend_str s;
    is_int(attend_gguf_str(g, "str", &s, err, sizeof err), 1, "a string is there");
    ok(s.n == 5 && memcmp(s.s, "hello", 5) == 0, "with its bytes");
    is_int(attend_gguf_str(g, "u8", &s, NULL, 0), ATTEND_EFORMAT, "the sentence is optional");
    attend_gguf_array a;
    is_int(attend_gguf_strs(g, "strs", &a, err, sizeof err), 1, "strings are there");
    is_int(a.count, 3, "three of them");
    for (int i = 0; i < 3; i++)
        ok(attend_gguf_array_next(&a, &s) && s.n == strlen((const char *[]){"a", "", "bc"}[i]),
           "string %d", i);
    ok(!attend_gguf_array_next(&a, &s), "and no fourth");
    is_int(attend_gguf_ints(g, "ints", &a, err, sizeof err), 1, "integers are there");
    ok(a.count == 2 && attend_gguf_array_int(&a, 0) == -1 && attend_gguf_array_int(&a, 1) == 7,
       "with their values");
    is_int(attend_gguf_ints(g, "strs", &a, err, sizeof err), ATTEND_EFORMAT,
           "strings are no integers");
    is_int(attend_gguf_strs(g, "ints", &a, err, sizeof err), ATTEND_EFORMAT,
           "integers are no strings");
    is_str(attend_gguf_key(g, 0), "bool", "keys are listed in order");
    ok(!attend_gguf_key(g, 15) && !attend_gguf_key(g, -1), "and no others");
    attend_gguf_free(g);
    free(data);
}

static void test_model(attend_type type)
{
    struct gen_model m;
    gen_model_init(&m);
    m.type = type;
    m.tied = type == ATTEND_F32;
    size_t size;
    unsigned char *data = gen_model_make(&m, &size);
    attend_gguf *g = open_memory(data, size);
    attend_gguf_tensor t;
    int64_t count = 0;
    for (const char *name; (name = attend_gguf_tensor_name(g, count)); count++) {
        int got = attend_gguf_tensor_get(g, name, &t, err, sizeof err);
        if (got == 1)
            got = attend_gguf_tensor_check(&t, err, sizeof err);
        is_int(got, 0, "%s: %s is whole", attend_type_name(type), name);
    }
    is_int(count, 2 + 2 * 9 + !m.tied, "all tensors are listed");
    is_int(attend_gguf_tensor_get(g, "blk.1.ffn_down.weight", &t, err, sizeof err), 1, "a matrix");
    ok(t.type == type && t.shape.rank == 2 && t.shape.dim[0] == 64 && t.shape.dim[1] == 96,
       "of its type and shape, rows first");
    is_int(t.bytes, 64 * attend_type_row_bytes(type, 96), "and its bytes");
    ok((const unsigned char *)t.data >= data && (uintptr_t)t.data % 8 == 0, "aligned in the file");
    is_int(attend_gguf_tensor_get(g, "none", &t, err, sizeof err), 0, "an absent tensor");
    attend_gguf_free(g);
    free(data);
}

static void test_path(void)
{
    static const char path[] = "t-800.gguf";
    struct gen_model m;
    attend_gguf *g;
    gen_model_init(&m);
    gen_model_write(&m, path);
    is_int(attend_gguf_open(path, &g, err, sizeof err), 0, "a file is opened");
    attend_gguf_free(g);

    struct at_os_file *f;
    if (at_os_file_new(&f, path, err, sizeof err) < 0)
        bail("%s", err);
    at_os_file_write(f, "GGUF", 4);
    if (at_os_file_finish(f, err, sizeof err) < 0)
        bail("%s", err);
    is_int(attend_gguf_open(path, &g, err, sizeof err), ATTEND_EFORMAT, "a cut one is refused");
    ok(strncmp(err, "t-800.gguf: the file ends", 25) == 0, "with its name: %s", err);
    ok(g == NULL, "and gives nothing");
    remove(path);
    is_int(attend_gguf_open(path, &g, err, sizeof err), ATTEND_EIO, "a missing one: %s", err);
    is_int(attend_gguf_from_memory(NULL, 0, &g, err, sizeof err), ATTEND_EINVAL,
           "no memory at all");
    attend_gguf_free(NULL);
}

/* ---- bad files ---- */

static const uint64_t row[] = {32};

/* Each makes one fault in f, whose sentence has the words beside it. */
static void no_magic(struct gen_file *f)
{
    f->version = 3;
}
static void version_1(struct gen_file *f)
{
    f->version = 1;
}
static void version_4(struct gen_file *f)
{
    f->version = 4;
}
static void big_endian(struct gen_file *f)
{
    f->version = 3u << 24;
}
static void many_keys(struct gen_file *f)
{
    f->key_count = UINT64_MAX;
}
static void more_keys(struct gen_file *f)
{
    f->key_count = 3;
}
static void many_tensors(struct gen_file *f)
{
    f->tensor_count = UINT64_MAX / 8;
}
static void more_tensors(struct gen_file *f)
{
    gen_tensor(f, "a", 1, row, 0, (float[32]){0}, 128);
    f->tensor_count++;
}
static void empty_key(struct gen_file *f)
{
    gen_key_u32(f, "", 0);
}
static void control_key(struct gen_file *f)
{
    gen_key_u32(f, "a\033[31m", 0);
}
static void long_key(struct gen_file *f)
{
    gen_u64(&f->keys, UINT64_MAX);
    gen_put(&f->keys, (char[32]){0}, 32);
    f->key_count++;
}
static void huge_key(struct gen_file *f)
{
    char *name = calloc(1, 70001);
    if (!name)
        bail("no memory");
    memset(name, 'x', 70000);
    gen_key_u32(f, name, 0);
    free(name);
}
static void unknown_value(struct gen_file *f)
{
    gen_key(f, "a", 13);
    gen_u64(&f->keys, 0);
}
static void unknown_array(struct gen_file *f)
{
    gen_key(f, "a", GEN_ARRAY);
    gen_u32(&f->keys, 99);
    gen_u64(&f->keys, 0);
}
static void nested_array(struct gen_file *f)
{
    gen_key(f, "a", GEN_ARRAY);
    for (int depth = 0; depth < 100; depth++) {
        gen_u32(&f->keys, GEN_ARRAY);
        gen_u64(&f->keys, 1);
    }
}
static void long_array(struct gen_file *f)
{
    gen_key(f, "a", GEN_ARRAY);
    gen_u32(&f->keys, GEN_I64);
    gen_u64(&f->keys, UINT64_MAX / 8 + 1); /* times 8 is 0 in 64 bits */
}
static void long_strings(struct gen_file *f)
{
    gen_key(f, "a", GEN_ARRAY);
    gen_u32(&f->keys, GEN_STR);
    gen_u64(&f->keys, UINT64_MAX);
}
static void long_string(struct gen_file *f)
{
    gen_key(f, "a", GEN_STR);
    gen_u64(&f->keys, 1000);
}
static void same_keys(struct gen_file *f)
{
    gen_key_u32(f, "a", 0);
    gen_key_str(f, "a", "");
}
static void same_tensors(struct gen_file *f)
{
    gen_tensor(f, "a", 1, row, 0, (float[32]){0}, 128);
    gen_tensor(f, "a", 1, row, 0, (float[32]){0}, 128);
}
static void rank_0(struct gen_file *f)
{
    gen_tensor(f, "a", 0, row, 0, "", 1);
}
static void rank_5(struct gen_file *f)
{
    gen_tensor(f, "a", 5, (uint64_t[]){1, 1, 1, 1, 1}, 0, (float[1]){0}, 4);
}
static void rank_huge(struct gen_file *f)
{
    gen_str(&f->tensors, "a");
    gen_u32(&f->tensors, UINT32_MAX);
    gen_put(&f->tensors, (char[64]){0}, 64);
    f->tensor_count++;
}
static void extent_0(struct gen_file *f)
{
    gen_tensor(f, "a", 1, (uint64_t[]){0}, 0, "", 1);
}
static void extent_negative(struct gen_file *f)
{
    gen_tensor(f, "a", 1, (uint64_t[]){UINT64_MAX}, 0, "", 1);
}
static void product_wraps(struct gen_file *f)
{
    const uint64_t d = UINT64_C(1) << 32; /* the product is 0 in 64 bits */
    gen_tensor(f, "a", 2, (uint64_t[]){d, d}, 0, "", 1);
}
static void bytes_wrap(struct gen_file *f)
{
    gen_tensor(f, "a", 1, (uint64_t[]){UINT64_C(1) << 62}, 0, "", 1);
}
static void product_of_unknown(struct gen_file *f)
{
    const uint64_t d = UINT64_C(1) << 32;
    gen_tensor(f, "a", 2, (uint64_t[]){d, d}, 77, "", 1);
}
static void half_block(struct gen_file *f)
{
    gen_tensor(f, "a", 2, (uint64_t[]){2, 48}, 8, (char[102]){0}, 102);
}
static void outside(struct gen_file *f)
{
    gen_tensor(f, "a", 1, row, 0, (float[32]){0}, 128);
    gen_describe(f, "b", 1, row, 0, 128);
}
static void far_outside(struct gen_file *f)
{
    gen_tensor(f, "a", 1, row, 0, (float[32]){0}, 128);
    gen_describe(f, "b", 1, row, 0, UINT64_MAX - 31);
}
static void last_byte_outside(struct gen_file *f)
{
    gen_tensor(f, "a", 1, row, 0, (float[32]){0}, 127);
}
static void unknown_outside(struct gen_file *f)
{
    gen_describe(f, "b", 1, row, 77, 1 << 20);
}
static void misaligned(struct gen_file *f)
{
    gen_tensor(f, "a", 1, row, 0, (float[64]){0}, 256);
    gen_describe(f, "b", 1, (uint64_t[]){1}, 0, 132);
}
static void overlap(struct gen_file *f)
{
    gen_tensor(f, "a", 1, row, 0, (float[64]){0}, 256);
    gen_describe(f, "b", 1, row, 0, 96);
}
static void same_place(struct gen_file *f)
{
    gen_tensor(f, "b", 1, row, 0, (float[64]){0}, 256);
    gen_describe(f, "a", 1, row, 0, 0);
}
static void inside_another(struct gen_file *f)
{
    gen_tensor(f, "a", 1, (uint64_t[]){64}, 0, (float[64]){0}, 256);
    gen_describe(f, "b", 1, (uint64_t[]){1}, 0, 64);
    gen_describe(f, "c", 1, (uint64_t[]){1}, 0, 128);
}
static void align_0(struct gen_file *f)
{
    gen_key_u32(f, "general.alignment", 0);
}
static void align_24(struct gen_file *f)
{
    gen_key_u32(f, "general.alignment", 24);
}
static void align_1(struct gen_file *f)
{
    gen_key_u32(f, "general.alignment", 1);
}
static void align_huge(struct gen_file *f)
{
    gen_key_u32(f, "general.alignment", 1u << 31);
    gen_tensor(f, "a", 1, row, 0, (float[32]){0}, 128);
}
static void align_text(struct gen_file *f)
{
    gen_key_str(f, "general.alignment", "32");
}

static const struct {
    void (*make)(struct gen_file *f);
    int status;
    const char *words;
} faults[] = {
    {no_magic,           ATTEND_EFORMAT,      "no GGUF file"                                      },
    {version_1,          ATTEND_EUNSUPPORTED, "version 1"                                         },
    {version_4,          ATTEND_EUNSUPPORTED, "version 4"                                         },
    {big_endian,         ATTEND_EUNSUPPORTED, "big endian"                                        },
    {many_keys,          ATTEND_EFORMAT,      "18446744073709551615 keys"                         },
    {more_keys,          ATTEND_EFORMAT,      "says that it holds 3 keys"                         },
    {many_tensors,       ATTEND_EFORMAT,      "tensors, more than fit"                            },
    {more_tensors,       ATTEND_EFORMAT,      "bytes; 1 to 65535"                                 },
    {empty_key,          ATTEND_EFORMAT,      "has 0 bytes"                                       },
    {control_key,        ATTEND_EFORMAT,      "control character"                                 },
    {long_key,           ATTEND_EFORMAT,      "needs 18446744073709551615 bytes"                  },
    {huge_key,           ATTEND_EFORMAT,      "has 70000 bytes"                                   },
    {unknown_value,      ATTEND_EFORMAT,      "key 'a' has type 13"                               },
    {unknown_array,      ATTEND_EFORMAT,      "key 'a' has type 99"                               },
    {nested_array,       ATTEND_EUNSUPPORTED, "array of arrays"                                   },
    {long_array,         ATTEND_EFORMAT,      "2305843009213693952 values of type i64"            },
    {long_strings,       ATTEND_EFORMAT,      "ends inside a string"                              },
    {long_string,        ATTEND_EFORMAT,      "needs 1000 bytes"                                  },
    {same_keys,          ATTEND_EFORMAT,      "key 'a' is there twice"                            },
    {same_tensors,       ATTEND_EFORMAT,      "tensor 'a' is there twice"                         },
    {rank_0,             ATTEND_EFORMAT,      "has 0 axes"                                        },
    {rank_5,             ATTEND_EFORMAT,      "has 5 axes"                                        },
    {rank_huge,          ATTEND_EFORMAT,      "has 4294967295 axes"                               },
    {extent_0,           ATTEND_EFORMAT,      "extent of 0"                                       },
    {extent_negative,    ATTEND_EFORMAT,      "extent of 18446744073709551615"                    },
    {product_wraps,      ATTEND_EFORMAT,      "more than 2^63 elements"                           },
    {bytes_wrap,         ATTEND_EFORMAT,      "more than 2^63 bytes"                              },
    {product_of_unknown, ATTEND_EFORMAT,      "more than 2^63 elements"                           },
    {half_block,         ATTEND_EFORMAT,      "rows of 48"                                        },
    {outside,            ATTEND_EFORMAT,      "tensor 'b' of 128 bytes at offset 128 lies outside"},
    {far_outside,        ATTEND_EFORMAT,      "lies outside"                                      },
    {last_byte_outside,  ATTEND_EFORMAT,      "which has 127 bytes"                               },
    {unknown_outside,    ATTEND_EFORMAT,      "lies outside"                                      },
    {misaligned,         ATTEND_EFORMAT,      "offset 132, no multiple of 32"                     },
    {overlap,            ATTEND_EFORMAT,      "tensors 'a' and 'b' overlap"                       },
    {same_place,         ATTEND_EFORMAT,      "overlap"                                           },
    {inside_another,     ATTEND_EFORMAT,      "tensors 'a' and 'b' overlap"                       },
    {align_0,            ATTEND_EFORMAT,      "general.alignment is 0"                            },
    {align_24,           ATTEND_EFORMAT,      "general.alignment is 24"                           },
    {align_1,            ATTEND_EFORMAT,      "general.alignment is 1"                            },
    {align_huge,         ATTEND_EFORMAT,      "lies outside"                                      },
    {align_text,         ATTEND_EFORMAT,      "has type str where an integer is needed"           },
};

static void test_faults(void)
{
    for (size_t i = 0; i < NELEM(faults); i++) {
        struct gen_file f;
        attend_gguf *g;
        size_t size;
        gen_init(&f);
        faults[i].make(&f);
        unsigned char *data = gen_finish(&f, &size);
        if (faults[i].make == no_magic)
            data[3] = 'X';
        err[0] = 0;
        is_int(attend_gguf_from_memory(data, size, &g, err, sizeof err), faults[i].status,
               "fault %zu is refused", i);
        ok(strstr(err, faults[i].words) != NULL, "and says: %s", err);
        attend_gguf_free(g);
        free(data);
    }
}

/* Every beginning of a small file, and many of a larger, in memory of just that size. */
static void test_cuts(const unsigned char *whole, size_t size, size_t step, const char *what)
{
    size_t refused = 0, cuts = 0;
    for (size_t n = 0; n < size; n += step, cuts++) {
        attend_gguf *g;
        unsigned char *cut = malloc(n + !n);
        if (!cut)
            bail("no memory");
        memcpy(cut, whole, n);
        err[0] = 0;
        refused += attend_gguf_from_memory(cut, n, &g, err, sizeof err) == ATTEND_EFORMAT && err[0];
        attend_gguf_free(g);
        free(cut);
    }
    is_int((int64_t)refused, (int64_t)cuts, "%s: all %zu beginnings are refused", what, cuts);
}

static void test_truncated(void)
{
    struct gen_file f;
    struct gen_model m;
    size_t size;
    gen_init(&f);
    gen_key_u32(&f, "number", 1);
    gen_key_strs(&f, "strings", (const char *const[]){"a", "bcd"}, 2);
    gen_key_i32s(&f, "integers", (const int32_t[]){1, 2}, 2);
    gen_tensor(&f, "a", 2, (uint64_t[]){2, 32}, 8, (char[68]){0}, 68);
    gen_tensor(&f, "b", 1, row, 0, (float[32]){0}, 128);
    unsigned char *data = gen_finish(&f, &size);
    test_cuts(data, size, 1, "small file");
    free(data);
    gen_model_init(&m);
    m.type = ATTEND_Q4_1;
    data = gen_model_make(&m, &size);
    test_cuts(data, size, 101, "model");
    free(data);
}

/* ---- contents ---- */

static void test_types(void)
{
    static const uint32_t absent[] = {6, 12, 25, 77};
    for (size_t i = 0; i < NELEM(absent); i++) {
        struct gen_file f;
        attend_gguf_tensor t;
        size_t size;
        gen_init(&f);
        gen_tensor(&f, "a", 1, (uint64_t[]){256}, absent[i], (char[512]){0}, 512);
        gen_tensor(&f, "b", 1, row, 0, (float[32]){0}, 128);
        unsigned char *data = gen_finish(&f, &size);
        attend_gguf *g = open_memory(data, size);
        is_int(attend_gguf_tensor_get(g, "b", &t, err, sizeof err), 1,
               "beside a tensor of type %" PRIu32 " others can be read", absent[i]);
        is_int(attend_gguf_tensor_get(g, "a", &t, err, sizeof err), ATTEND_EUNSUPPORTED,
               "but not it: %s", err);
        ok(strstr(err, "tensor 'a' has type") != NULL, "which is said");
        attend_gguf_free(g);
        free(data);
    }
}

static void test_check(void)
{
    static const struct {
        uint32_t type;
        size_t bytes, at; /* of 3 rows of 64; the two bytes at `at` are damaged */
        const char *damage, *words;
    } cases[] = {
        {0,  768,  256 + 4 * 5 + 2, "\x80\x7f",
         "element that is NaN or infinite, in row 1, column 5"                                        },
        {0,  768,  766,             "\xc0\xff", "element that is NaN or infinite, in row 2, column 63"},
        {28, 1536, 512 + 8 * 7 + 6, "\xf0\x7f", "in row 1, column 7"                                  },
        {1,  384,  2 * 64,          "\x00\x7c", "in row 1, column 0"                                  },
        {30, 384,  2 * 70,          "\xff\xff", "in row 1, column 6"                                  },
        {8,  204,  34 * 3,          "\x01\x7e", "scale that is NaN or infinite, in row 1, column 32"  },
        {2,  108,  18 * 5,          "\x00\xfc", "scale that is NaN or infinite, in row 2, column 32"  },
        {3,  120,  20 * 4,          "\x00\x7c", "scale that is NaN or infinite, in row 2, column 0"   },
        {3,  120,  20 * 1 + 2,      "\x00\x7e", "minimum that is NaN or infinite, in row 0, column 32"},
    };
    for (size_t i = 0; i < NELEM(cases); i++) {
        unsigned char content[1536] = {0};
        struct gen_file f;
        attend_gguf_tensor t;
        size_t size;
        memcpy(content + cases[i].at, cases[i].damage, 2);
        gen_init(&f);
        gen_tensor(&f, "w", 2, (uint64_t[]){3, 64}, cases[i].type, content, cases[i].bytes);
        unsigned char *data = gen_finish(&f, &size);
        attend_gguf *g = open_memory(data, size);
        if (attend_gguf_tensor_get(g, "w", &t, err, sizeof err) != 1)
            bail("%s", err);
        is_int(attend_gguf_tensor_check(&t, err, sizeof err), ATTEND_EFORMAT,
               "%s: a number that is not finite", attend_type_name(t.type));
        ok(strstr(err, cases[i].words) != NULL, "is named: %s", err);
        attend_gguf_free(g);
        free(data);
    }
}

/* ---- random damage ---- */

/* Looks at everything that a file gives; the checker of memory judges. */
static void walk(const attend_gguf *g)
{
    const char *name;
    int64_t v = 0, sum = 0;
    double d = 0;
    for (int64_t i = 0; (name = attend_gguf_key(g, i)); i++) {
        attend_str s = {"", 0};
        attend_gguf_array a = {0};
        sum += attend_gguf_int(g, name, &v, err, sizeof err);
        sum += attend_gguf_float(g, name, &d, err, sizeof err);
        if (attend_gguf_str(g, name, &s, err, sizeof err) == 1 && s.n > 0)
            sum += s.s[0] + s.s[s.n - 1];
        if (attend_gguf_strs(g, name, &a, err, sizeof err) == 1)
            while (attend_gguf_array_next(&a, &s))
                sum += s.n > 0 ? s.s[0] + s.s[s.n - 1] : 0;
        if (attend_gguf_ints(g, name, &a, err, sizeof err) == 1)
            for (int64_t j = 0; j < a.count; j++)
                sum += attend_gguf_array_int(&a, j) & 1;
    }
    for (int64_t i = 0; (name = attend_gguf_tensor_name(g, i)); i++) {
        attend_gguf_tensor t;
        if (attend_gguf_tensor_get(g, name, &t, err, sizeof err) == 1)
            sum += attend_gguf_tensor_check(&t, err, sizeof err);
    }
    if (sum == INT64_MIN) /* never: but the sum is used */
        diag("%f", d);
}

static void use_tokenizer(const attend_gguf *g)
{
    static const char text[] = "The <|im_start|>world, 123 caf\xc3\xa9s and <tool>\n\n ...";
    attend_tokenizer *t;
    char *chat;
    if (attend_tokenizer_new(g, &t, err, sizeof err) == 0) {
        int32_t ids[sizeof text];
        int64_t n = attend_tokenizer_encode(t, text, strlen(text), 1, ids, err, sizeof err);
        for (int64_t i = 0; i < n; i++)
            if (!attend_tokenizer_piece(t, ids[i]).s || attend_tokenizer_kind(t, ids[i]) < 0)
                ok(false, "token %d has no piece", (int)ids[i]);
        attend_tokenizer_free(t);
    }
    if (attend_chat_wrap(g, "hello", 5, &chat, err, sizeof err) > 0)
        attend_free(chat);
}

/* Changes a few places of the n bytes; lengths, counts and offsets are hit often. */
static size_t damage(unsigned char *p, size_t n, uint64_t *seed)
{
    static const uint64_t numbers[] = {0,
                                       1,
                                       8,
                                       255,
                                       UINT32_MAX,
                                       UINT64_C(1) << 32,
                                       INT64_MAX,
                                       UINT64_C(1) << 61,
                                       UINT64_MAX - 7,
                                       UINT64_MAX};
    for (uint64_t hits = 1 + gen_random(seed) % 3; hits > 0; hits--) {
        size_t at = gen_random(seed) % (n - 8);
        uint64_t number = numbers[gen_random(seed) % NELEM(numbers)];
        switch (gen_random(seed) % 4) {
        case 0:
            p[at] ^= (unsigned char)(1u << gen_random(seed) % 8);
            break;
        case 1:
            memcpy(p + at, &number, gen_random(seed) % 8 + 1);
            break;
        case 2:
            memmove(p + at, p + gen_random(seed) % (n - 8), 8);
            break;
        default:
            p[at] = (unsigned char)gen_random(seed);
        }
    }
    return gen_random(seed) % 16 == 0 ? gen_random(seed) % n : n;
}

static void test_damage(void)
{
    enum { ROUNDS = 4000 };
    struct gen_model m;
    size_t size;
    int opened = 0, refused = 0;
    uint64_t seed = 800;
    gen_model_init(&m);
    m.type = ATTEND_Q4_1;
    m.layers = 1;
    unsigned char *whole = gen_model_make(&m, &size), *copy = malloc(size);
    const size_t header = 9000; /* of about this many bytes; data is damaged only now and then */
    if (!copy || size < header)
        bail("the model has %zu bytes", size);
    for (int i = 0; i < ROUNDS; i++) {
        attend_gguf *g;
        memcpy(copy, whole, size);
        size_t n = damage(copy, gen_random(&seed) % 8 ? header : size, &seed);
        n = n == header ? size : n;
        unsigned char *exact = malloc(n + !n);
        if (!exact)
            bail("no memory");
        memcpy(exact, copy, n);
        err[0] = 0;
        if (attend_gguf_from_memory(exact, n, &g, err, sizeof err) == 0) {
            opened++;
            walk(g);
            use_tokenizer(g);
        } else {
            refused += err[0] != 0;
        }
        attend_gguf_free(g);
        free(exact);
    }
    is_int(opened + refused, ROUNDS, "%d damaged files: %d opened, %d refused", ROUNDS, opened,
           refused);
    ok(opened > ROUNDS / 100 && refused > ROUNDS / 100, "and both happen");
    free(copy);
    free(whole);
}

int main(void)
{
    static const attend_type types[] = {ATTEND_F32,  ATTEND_F16,  ATTEND_BF16,
                                        ATTEND_Q8_0, ATTEND_Q4_0, ATTEND_Q4_1};
    test_values();
    for (size_t i = 0; i < NELEM(types); i++)
        test_model(types[i]);
    test_path();
    test_faults();
    test_truncated();
    test_types();
    test_check();
    test_damage();
    return done_testing();
}
