/* SPDX-License-Identifier: MIT */
/* The safetensors reader: what a good file holds, and that every bad one is refused with a
 * sentence. */
#include "models.h"
#include "tap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char err[512];

static union {
    unsigned char bytes[8192];
    double align;
} file;
static size_t size;

/* A file of this header and so many bytes of data, 0, 1, 2 ... */
static void make(const char *header, size_t data)
{
    size_t n = strlen(header);
    memset(file.bytes, 0, 8);
    file.bytes[0] = (unsigned char)n;
    file.bytes[1] = (unsigned char)(n >> 8);
    memcpy(file.bytes + 8, header, n);
    for (size_t i = 0; i < data; i++)
        file.bytes[8 + n + i] = (unsigned char)i;
    size = 8 + n + data;
}

static attend_safetensors *open_made(void)
{
    attend_safetensors *s;
    if (attend_safetensors_from_memory(file.bytes, size, &s, err, sizeof err) < 0)
        bail("a good file was refused: %s", err);
    return s;
}

/* Blanks at its end make data begin at a multiple of 8. */
#define GOOD                                                                                       \
    "{\"__metadata__\":{\"format\":\"pt\"},"                                                       \
    "\"b\":{\"dtype\":\"I64\",\"shape\":[2],\"data_offsets\":[8,24]},"                             \
    "\"a\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]},"                            \
    "\"none\":{\"dtype\":\"F16\",\"shape\":[0,3],\"data_offsets\":[8,8]},"                         \
    "\"u\":{\"dtype\":\"U16\",\"shape\":[],\"data_offsets\":[24,26]}}   "

static void test_good(void)
{
    attend_safetensors_tensor t = {.bytes = 99};
    make(GOOD, 26);
    attend_safetensors *s = open_made();
    is_str(attend_safetensors_name(s, 0), "a", "names are in order");
    is_str(attend_safetensors_name(s, 3), "u", "and metadata is none of them");
    ok(!attend_safetensors_name(s, 4) && !attend_safetensors_name(s, -1), "beyond them is NULL");
    is_int(attend_safetensors_get(s, "c", &t, err, sizeof err), 0, "what is not there");
    is_int(t.bytes, 99, "leaves the output alone");
    is_int(attend_safetensors_get(s, "a", &t, err, sizeof err), 1, "a is there");
    ok(t.type == ATTEND_F32 && t.shape.rank == 2 && t.shape.dim[0] == 1 && t.shape.dim[1] == 2 &&
           t.bytes == 8,
       "with its type and shape");
    is_mem(t.data, "\0\1\2\3\4\5\6\7", 8, "and data");
    is_int(attend_safetensors_get(s, "none", &t, err, sizeof err), 1, "an empty tensor");
    is_int(t.bytes, 0, "has no bytes");
    is_int(attend_safetensors_get(s, "u", &t, err, sizeof err), ATTEND_EUNSUPPORTED, "u16");
    is_str(err, "tensor 'u' has dtype U16, which is not supported", "is said to be so");
    attend_safetensors_free(s);
    attend_safetensors_free(NULL);
}

static void test_unaligned(void)
{
    attend_safetensors_tensor t;
    make("{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4);
    ok(size % 4 != 0, "a header that ends anywhere");
    attend_safetensors *s = open_made();
    is_int(attend_safetensors_get(s, "a", &t, err, sizeof err), ATTEND_EUNSUPPORTED, "is refused");
    is_str(err, "tensor 'a' does not lie at a multiple of the 4 bytes of its elements", "so");
    attend_safetensors_free(s);
}

#define ONE(dtype, shape, place)                                                                   \
    "{\"a\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" place "}}"

static void test_refusals(void)
{
    static const struct {
        const char *header;
        size_t data;
        const char *sentence; /* how it begins */
    } bad[] = {
        {"[]",                                                    0,                     "its header is no JSON object"                     },
        {"{",                                                     0,                     "its header is no JSON: "                          },
        {"{\"a\":1,\"a\":1}",                                     0,                     "its header is no JSON: duplicate object key"      },
        {"{\"a\":1}",                                             0,                     "tensor 'a' is described by no JSON object"        },
        {"{\"\":{}}",                                             0,                     "a tensor has a name of 0 bytes"                   },
        {"{\"a\\n\":{}}",                                         0,                     "the name of a tensor has a control character (10)"},
        {"{\"a\":{}}",                                            0,                     "tensor 'a' has no dtype"                          },
        {ONE("\"F7\"",                                            "[1]",                 "[0,4]"),                                            4, "tensor 'a' has dtype 'F7', which is not known"},
        {ONE("\"F32\"",        "1",                             "[0,4]"),                                                                    4, "tensor 'a' has no shape"},
        {ONE("\"F32\"",                                               "[1,1,1,1,1,1,1]",                                       "[0,4]"),4, "tensor 'a' has 7 axes; 6 are allowed"},
        {ONE("\"F32\"",                                           "[-1]", "[0,4]"),      4, "tensor 'a': axis 0 of its shape is no extent"},
        {ONE("\"F32\"",                 "[1.0]",                                      "[0,4]"),                                                                             4, "tensor 'a': axis 0 of its shape is no extent"},
        {ONE("\"F32\"",                                               "[4294967296,4294967296]",                                                                   "[0,4]"),                                                                   4,
         "tensor 'a' has more than 2^63 bytes"},
        {ONE("\"F32\"",                                           "[1]",                                         "[0]"),                                               4, "tensor 'a' has no two data_offsets"},
        {ONE("\"F32\"",         "[1]",                              "[0,8]"),                                                                     4, "tensor 'a' from byte 0 to 8 lies outside of the file"},
        {ONE("\"F32\"",                                               "[1]", "[4,0]"),                                                                                               4, "tensor 'a' from byte 4 to 0 lies outside of the file"},
        {ONE("\"F32\"",                                           "[1]",                 "[-4,0]"),                      4,
         "tensor 'a' from byte -4 to 0 lies outside of the file"},
        {ONE("\"F32\"",                   "[1]",                                        "[0,9223372036854775808]"),                                                                               4,
         "its header is no JSON: too big integer"},
        {ONE("\"F32\"",                                               "[2]",                                      "[0,4]"),4,
         "tensor 'a' has 4 bytes, but its shape and dtype need 8"},
        {ONE("\"F32\"",                                           "[1]",             "[4,8]"),                                                        8,
         "tensor 'a' begins at byte 4 of the data, and 0 is where the one before it"},
        {ONE("\"F32\"", "[1]",                      "[0,4]"),                                                             8, "4 bytes of the data belong to no tensor"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",                                              3,                                                  "tensor 'b' begins at byte 1 of the data, and 2 is where the one before it"                                                                            },
    };
    for (size_t i = 0; i < NELEM(bad); i++) {
        attend_safetensors *s = (attend_safetensors *)&file;
        make(bad[i].header, bad[i].data);
        is_int(attend_safetensors_from_memory(file.bytes, size, &s, err, sizeof err),
               ATTEND_EFORMAT, "%s", bad[i].header);
        ok(!s, "gives no object");
        if (!ok(strncmp(err, bad[i].sentence, strlen(bad[i].sentence)) == 0, "and says %s",
                bad[i].sentence))
            diag("it said: %s", err);
    }
}

/* Every file that is cut short is refused; every changed byte is refused or gives tensors inside.
 */
static void test_damage(void)
{
    attend_safetensors *s;
    attend_safetensors_tensor t;
    size_t good = 0, inside = 0, opened = 0;
    make(GOOD, 26);
    for (size_t n = 0; n < size; n++) {
        good += attend_safetensors_from_memory(file.bytes, n, &s, err, sizeof err) == 0;
        attend_safetensors_free(s);
    }
    is_int((int64_t)good, 0, "no file that is cut short is taken");
    for (size_t n = 0; n < size - 26; n++)
        for (int bit = 0; bit < 8; bit++) {
            file.bytes[n] ^= (unsigned char)(1 << bit);
            if (attend_safetensors_from_memory(file.bytes, size, &s, err, sizeof err) == 0)
                for (int i = 0; attend_safetensors_name(s, i); i++)
                    if (attend_safetensors_get(s, attend_safetensors_name(s, i), &t, err,
                                               sizeof err) == 1) {
                        const unsigned char *p = t.data;
                        opened++;
                        inside += p >= file.bytes && p + t.bytes <= file.bytes + size;
                    }
            attend_safetensors_free(s);
            file.bytes[n] ^= (unsigned char)(1 << bit);
        }
    ok(opened > 0, "a name may change");
    is_int((int64_t)inside, (int64_t)opened, "tensors of a changed header lie inside of the file");
}

static void test_files(void)
{
    attend_safetensors *s;
    is_int(attend_safetensors_open("no such file", &s, err, sizeof err), ATTEND_EIO, "no file");
    ok(strstr(err, "no such file") != NULL, "is named: %s", err);
    is_int(attend_safetensors_from_memory(NULL, 8, &s, err, sizeof err), ATTEND_EINVAL, "NULL");
}

int main(void)
{
    attend_safetensors *s;
    make(GOOD, 26);
    int status = attend_safetensors_from_memory(file.bytes, size, &s, err, sizeof err);
    attend_safetensors_free(s);
    if (status == ATTEND_EUNSUPPORTED)
        skip_all("%s", err);
    test_good();
    test_unaligned();
    test_refusals();
    test_damage();
    test_files();
    return done_testing();
}
