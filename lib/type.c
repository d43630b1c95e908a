/* SPDX-License-Identifier: MIT */
/* The element types: names and sizes. */
#include "core.h"
#include "quant.h"

static const struct {
    const char *name;
    int block; /* elements */
    size_t size;
} types[ATTEND_TYPE_COUNT] = {
    [ATTEND_F32] = {"f32",  1,              4                     },
    [ATTEND_F16] = {"f16",  1,              2                     },
    [ATTEND_BF16] = {"bf16", 1,              2                     },
    [ATTEND_F64] = {"f64",  1,              8                     },
    [ATTEND_I8] = {"i8",   1,              1                     },
    [ATTEND_I32] = {"i32",  1,              4                     },
    [ATTEND_I64] = {"i64",  1,              8                     },
    [ATTEND_U8] = {"u8",   1,              1                     },
    [ATTEND_BOOL] = {"bool", 1,              1                     },
    [ATTEND_Q8_0] = {"q8_0", AT_QUANT_BLOCK, sizeof(struct at_q8_0)},
    [ATTEND_Q4_0] = {"q4_0", AT_QUANT_BLOCK, sizeof(struct at_q4_0)},
    [ATTEND_Q4_1] = {"q4_1", AT_QUANT_BLOCK, sizeof(struct at_q4_1)},
    [ATTEND_F8] = {"f8",   1,              1                     },
};

static bool known(attend_type type)
{
    return (unsigned)type < ATTEND_TYPE_COUNT;
}

const char *attend_type_name(attend_type type)
{
    return known(type) ? types[type].name : "?";
}

int64_t attend_type_block(attend_type type)
{
    return known(type) ? types[type].block : 0;
}

size_t attend_type_size(attend_type type)
{
    return known(type) ? types[type].size : 0;
}

int64_t attend_type_row_bytes(attend_type type, int64_t n)
{
    if (!known(type) || n < 0)
        return -1;
    int64_t blocks = n / types[type].block + (n % types[type].block != 0);
    return at_mul_size(blocks, (int64_t)types[type].size);
}
