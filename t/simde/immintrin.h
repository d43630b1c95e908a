/* SPDX-License-Identifier: MIT */
/* AVX-512 on CPUs that lack it: stands before the compiler's header of this name (t/950-avx512.t),
 * adds SIMDe and what its release in Debian 12 does not have, and gives the types and, by
 * simde_names.h, which the test makes, the instructions their usual names. */
#ifndef AT_SIMDE_H
#define AT_SIMDE_H

#include_next <immintrin.h>

#include <simde/x86/avx512.h>
#include <stdint.h>
#include <string.h>

#define EACH for (int e = 0; e < 16; e++)
static inline simde__m512 simde_mm512_maskz_loadu_ps(simde__mmask16 m, const void *p)
{
    float x[16] = {0};
    EACH if (m >> e & 1) x[e] = ((const float *)p)[e];
    return simde_mm512_loadu_ps(x);
}
static inline void simde_mm512_mask_storeu_ps(void *p, simde__mmask16 m, simde__m512 v)
{
    float x[16];
    simde_mm512_storeu_ps(x, v);
    EACH if (m >> e & 1)((float *)p)[e] = x[e];
}
static inline simde__m512 simde_mm512_cvtepi32_ps(simde__m512i v)
{
    int32_t i[16];
    float x[16];
    simde_mm512_storeu_si512(i, v);
    EACH x[e] = (float)i[e];
    return simde_mm512_loadu_ps(x);
}
static inline simde__m512i simde_mm512_cvtepi8_epi32(simde__m128i v)
{
    int8_t b[16];
    int32_t i[16];
    memcpy(b, &v, sizeof b);
    EACH i[e] = b[e];
    return simde_mm512_loadu_si512(i);
}
static inline simde__m512i simde_mm512_cvtepu8_epi32(simde__m128i v)
{
    uint8_t b[16];
    int32_t i[16];
    memcpy(b, &v, sizeof b);
    EACH i[e] = b[e];
    return simde_mm512_loadu_si512(i);
}
static inline simde__m512i simde_mm512_cvtepu16_epi32(simde__m256i v)
{
    uint16_t h[16];
    int32_t i[16];
    memcpy(h, &v, sizeof h);
    EACH i[e] = h[e];
    return simde_mm512_loadu_si512(i);
}
static inline simde__m256i simde_mm512_cvtepi32_epi16(simde__m512i v)
{
    int32_t i[16];
    int16_t h[16];
    simde__m256i r;
    simde_mm512_storeu_si512(i, v);
    EACH h[e] = (int16_t)i[e];
    memcpy(&r, h, sizeof r);
    return r;
}
static inline simde__m512 simde_mm512_cvtph_ps(simde__m256i v)
{
    __m128i h[2];
    float x[16];
    memcpy(h, &v, sizeof h);
    _mm256_storeu_ps(x, _mm256_cvtph_ps(h[0]));
    _mm256_storeu_ps(x + 8, _mm256_cvtph_ps(h[1]));
    return simde_mm512_loadu_ps(x);
}
#define simde_mm512_cvtps_ph(v, r) halves_of(v)
static inline simde__m256i halves_of(simde__m512 v)
{
    float x[16];
    __m128i h[2];
    simde__m256i to;
    simde_mm512_storeu_ps(x, v);
    for (int e = 0; e < 2; e++)
        h[e] = _mm256_cvtps_ph(_mm256_loadu_ps(x + 8 * e), _MM_FROUND_TO_NEAREST_INT);
    memcpy(&to, h, sizeof to);
    return to;
}
static inline simde__m256 simde_mm512_extractf32x8_ps(simde__m512 v, int part)
{
    float x[16];
    simde_mm512_storeu_ps(x, v);
    return _mm256_loadu_ps(x + 8 * part);
}
static inline simde__m512 simde_mm512_moveldup_ps(simde__m512 v)
{
    float x[16];
    simde_mm512_storeu_ps(x, v);
    EACH x[e] = x[e & ~1];
    return simde_mm512_loadu_ps(x);
}
static inline simde__m512 simde_mm512_movehdup_ps(simde__m512 v)
{
    float x[16];
    simde_mm512_storeu_ps(x, v);
    EACH x[e] = x[e | 1];
    return simde_mm512_loadu_ps(x);
}

#define __m512 simde__m512
#define __m512i simde__m512i
#define __mmask16 simde__mmask16
#include "simde_names.h"

#endif
