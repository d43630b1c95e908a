/* SPDX-License-Identifier: MIT */
/* .npy files: what is written is read back, what lies is refused with a sentence; conversions. */
#include "attend.h"
#include "tap.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char path[] = "t-030.npy";

static void write_file(const void *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0)
        bail("cannot write %s", path);
}

/* A file of version `major` with this header and so many bytes of elements. */
static void write_npy(int major, const char *header, size_t elements)
{
    uint8_t file[1024] = "\x93NUMPY";
    size_t start = major == 1 ? 10 : 12, size = strlen(header);
    file[6] = (uint8_t)major;
    file[8] = (uint8_t)size;
    memcpy(file + start, header, size);
    for (size_t k = 0; k < elements; k++)
        file[start + size + k] = (uint8_t)k;
    write_file(file, start + size + elements);
}

/* ---- reading what others write ---- */

static void test_versions(void)
{
    static const char header[] =
        "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }    \n";
    attend_array a;
    char err[256];
    for (int v = 1; v <= 3; v++) {
        write_npy(v, header, 24);
        is_int(attend_npy_read(path, &a, err, sizeof err), 0, "version %d is read", v);
        ok(a.type == ATTEND_I32 && a.bytes == 24, "its type and size");
        ok(a.shape.rank == 2 && a.shape.dim[0] == 2 && a.shape.dim[1] == 3, "its shape");
        is_int(a.data ? ((int32_t *)a.data)[1] : 0, 0x07060504, "its elements");
        attend_free(a.data);
    }
    write_npy(1, "{\"shape\":(4,),\"fortran_order\":False,\"descr\":\"|u1\"}", 4);
    is_int(attend_npy_read(path, &a, err, sizeof err), 0, "any order, double quotes, no blanks");
    ok(a.type == ATTEND_U8 && a.shape.rank == 1 && a.shape.dim[0] == 4, "is the same dict");
    attend_free(a.data);
}

/* ---- refusals ---- */

static const struct {
    const char *header;
    size_t elements;
    int status;
    const char *says;
} refused[] = {
    {"{'descr': '>f4', 'fortran_order': False, 'shape': (2,)}",                     8, ATTEND_EUNSUPPORTED,
     "big-endian"                                                                                                          },
    {"{'descr': '<f4', 'fortran_order': True, 'shape': (2,)}",                      8, ATTEND_EUNSUPPORTED, "Fortran"      },
    {"{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}",                     8, ATTEND_EUNSUPPORTED, "'<c8'"        },
    {"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",                      8, ATTEND_EUNSUPPORTED, "'|O'"         },
    {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",            4, ATTEND_EFORMAT,
     "simple"                                                                                                              },
    {"{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}",                         8, ATTEND_EFORMAT,      "True or False"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}",                     7, ATTEND_EFORMAT,      "7 bytes"      },
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}",                     9, ATTEND_EFORMAT,      "needs 8"      },
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}",                    8, ATTEND_EFORMAT,      "extent"       },
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2}",                       8, ATTEND_EFORMAT,      "tuple"        },
    {"{'descr': '<f4', 'fortran_order': False, 'shape': 2}",                        8, ATTEND_EFORMAT,      "tuple"        },
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,",                       8, ATTEND_EFORMAT,      "extent"       },
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808,)}",   8, ATTEND_EFORMAT,
     "extent"                                                                                                              },
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}", 8,
     ATTEND_EFORMAT,                                                                                        "more than"    },
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1)}",          4, ATTEND_ELIMIT,
     "6 axes"                                                                                                              },
    {"{'descr': '<f4', 'fortran_order': False}",                                    4, ATTEND_EFORMAT,      "lacks"        },
    {"{'descr': '<f4', 'size': 3}",                                                 4, ATTEND_EFORMAT,      "key"          },
    {"{'descr': '<f4', 'fortran_order': False, 'shape': ()} x",                     4, ATTEND_EFORMAT,      "follows"      },
    {"{'descr': '<f4",                                                              4, ATTEND_EFORMAT,      "simple"       },
    {"",                                                                            4, ATTEND_EFORMAT,      "dict"         },
};

static void test_refused(void)
{
    attend_array a;
    char err[256];
    for (size_t k = 0; k < NELEM(refused); k++) {
        write_npy(1, refused[k].header, refused[k].elements);
        is_int(attend_npy_read(path, &a, err, sizeof err), refused[k].status, "refused: %s",
               refused[k].header);
        ok(strstr(err, refused[k].says) && strstr(err, path) && !a.data, "with: %s", err);
    }
    write_npy(4, refused[0].header, 8);
    is_int(attend_npy_read(path, &a, err, sizeof err), ATTEND_EUNSUPPORTED, "version 4 is refused");
    ok(strstr(err, "4.0") != NULL, "with: %s", err);
    is_int(attend_npy_read("no-such.npy", &a, err, sizeof err), ATTEND_EIO, "a missing file");
}

/* Every beginning of a file is refused; so is a header that claims to be longer than the file. */
static void test_truncated(void)
{
    uint8_t file[512];
    size_t size;
    attend_array a;
    char err[256];
    int wrong = 0;
    write_npy(2, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 8);
    FILE *f = fopen(path, "rb");
    if (!f)
        bail("cannot read %s", path);
    size = fread(file, 1, sizeof file, f);
    fclose(f);
    for (size_t n = 0; n < size; n++) {
        write_file(file, n);
        wrong += attend_npy_read(path, &a, err, sizeof err) != ATTEND_EFORMAT || a.data;
    }
    is_int(wrong, 0, "a file that ends early is refused wherever it ends");
    memset(file + 8, 0xff, 4);
    write_file(file, size);
    is_int(attend_npy_read(path, &a, err, sizeof err), ATTEND_EFORMAT, "a header of 4 GiB: %s",
           err);
}

/* ---- writing ---- */

static void round_trip(attend_type type, attend_shape shape, int64_t bytes)
{
    uint8_t data[64], first[128];
    attend_array a = {type, shape, data, bytes}, b;
    char err[256] = "";
    for (size_t k = 0; k < sizeof data; k++)
        data[k] = type == ATTEND_BOOL ? k & 1 : (uint8_t)(k * 7);
    const char *name = attend_type_name(type);
    is_int(attend_npy_write(path, &a, err, sizeof err), 0, "%s of rank %d is written %s", name,
           shape.rank, err);
    is_int(attend_npy_read(path, &b, err, sizeof err), 0, "and read %s", err);
    ok(b.type == type && b.bytes == bytes && b.shape.rank == shape.rank &&
           memcmp(b.shape.dim, shape.dim, (size_t)shape.rank * sizeof *shape.dim) == 0,
       "with its type and shape");
    is_mem(b.data, data, (size_t)bytes, "and elements");
    attend_free(b.data);
    FILE *f = fopen(path, "rb");
    if (!f || fread(first, 1, sizeof first, f) != sizeof first)
        bail("cannot read %s", path);
    fclose(f);
    ok((first[8] + 256 * first[9] + 10) % 64 == 0, "the elements begin at a multiple of 64");
}

static void test_written(void)
{
    attend_shape scalar = {0}, empty = ATTEND_SHAPE(3, 0, 5);
    attend_array a = {ATTEND_F32, ATTEND_SHAPE(2, 3), NULL, 20};
    char err[256];
    round_trip(ATTEND_F32, ATTEND_SHAPE(2, 3), 24);
    round_trip(ATTEND_F16, ATTEND_SHAPE(5), 10);
    round_trip(ATTEND_BF16, ATTEND_SHAPE(1, 1, 1, 1, 1, 7), 14);
    round_trip(ATTEND_F64, ATTEND_SHAPE(2, 2), 32);
    round_trip(ATTEND_I8, ATTEND_SHAPE(9), 9);
    round_trip(ATTEND_U8, ATTEND_SHAPE(9), 9);
    round_trip(ATTEND_I32, scalar, 4);
    round_trip(ATTEND_I64, ATTEND_SHAPE(4), 32);
    round_trip(ATTEND_BOOL, ATTEND_SHAPE(3, 3), 9);
    round_trip(ATTEND_F32, empty, 0);
    is_int(attend_npy_write(path, &a, err, sizeof err), ATTEND_EINVAL, "20 bytes of 2 x 3 f32");
    ok(strstr(err, "20") && strstr(err, "24"), "with both numbers: %s", err);
    a.type = ATTEND_Q8_0;
    is_int(attend_npy_write(path, &a, err, sizeof err), ATTEND_EUNSUPPORTED, "q8_0: %s", err);
    remove(path);
}

/* ---- conversion ---- */

static uint16_t to16(attend_type type, double x)
{
    uint16_t y = 0xdead;
    if (attend_convert(type, &y, ATTEND_F64, &x, 1) < 0)
        diag("f64 to %s failed", attend_type_name(type));
    return y;
}

static void test_rounding(void)
{
    is_int(to16(ATTEND_F16, 1 + 0x1p-11), 0x3c00, "f16: a tie goes to even");
    is_int(to16(ATTEND_F16, 1 + 0x1p-11 + 0x1p-40), 0x3c01,
           "f16: above a tie by less than f32 sees");
    is_int(to16(ATTEND_F16, 1 + 0x3p-11 - 0x1p-40), 0x3c01, "f16: below a tie by as little");
    is_int(to16(ATTEND_BF16, -1 - 0x1p-8 - 0x1p-50), 0xbf81, "bf16: the same");
    is_int(to16(ATTEND_F16, 65519.999999999), 0x7bff, "f16: just below 65520 is the largest");
    is_int(to16(ATTEND_F16, 65520), 0x7c00, "f16: 65520 is infinity");
    is_int(to16(ATTEND_F16, 1e300), 0x7c00, "f16: 1e300 is infinity");
    is_int(to16(ATTEND_F16, 0x1p-25 + 0x1p-70), 1, "f16: above half of the smallest");
    is_int(to16(ATTEND_F16, -1e-300), 0x8000, "f16: -1e-300 is -0");
    ok((to16(ATTEND_F16, (double)NAN) & 0x7fff) > 0x7c00, "f16: NaN stays NaN");

    int64_t big = (1LL << 60) + (1LL << 36) + 1;
    float f = 0;
    is_int(attend_convert(ATTEND_F32, &f, ATTEND_I64, &big, 1), 0, "i64 to f32");
    is_float((double)f, 0x1p60 + 0x1p37, 0, "is rounded once");
}

static void test_convert(void)
{
    float x[40], y[40];
    uint8_t blocks[2 * 34];
    int32_t i[3] = {-7, 0, 1 << 30};
    int8_t b[3] = {-128, 1, 127};
    for (int k = 0; k < 40; k++)
        x[k] = (float)(k - 20) / 8;
    is_int(attend_convert(ATTEND_Q8_0, blocks, ATTEND_F32, x, 40), 0, "40 f32 to q8_0");
    is_int(attend_convert(ATTEND_F32, y, ATTEND_Q8_0, blocks, 40), 0, "and back");
    int far = 0; /* counted: gcc 12 for AArch64 fails to compile the largest as a reduction */
    for (int k = 0; k < 40; k++)
        far += fabs((double)y[k] - (double)x[k]) > 2.5 / 127 * 0.51;
    is_int(far, 0, "within half a step");
    is_int(attend_convert(ATTEND_F32, y, ATTEND_I32, i, 3), 0, "i32 to f32");
    ok(y[0] == -7 && y[1] == 0 && y[2] == 0x1p30f, "exactly");
    is_int(attend_convert(ATTEND_F32, y, ATTEND_I8, b, 3), 0, "i8 to f32");
    ok(y[0] == -128 && y[1] == 1 && y[2] == 127, "exactly");
    is_int(attend_convert(ATTEND_I32, i, ATTEND_F32, x, 3), ATTEND_EINVAL, "f32 to i32 is refused");
    is_int(attend_convert(ATTEND_F32, y, ATTEND_F32, x, -1), ATTEND_EINVAL, "so are -1 elements");
    is_int(attend_convert(ATTEND_F32, NULL, ATTEND_F16, NULL, 0), 0, "none are fine");
}

int main(void)
{
    test_versions();
    test_refused();
    test_truncated();
    test_written();
    test_rounding();
    test_convert();
    return done_testing();
}
