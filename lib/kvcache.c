/* SPDX-License-Identifier: MIT */
/* Pages of a KV cache: which sequence has which, who shares, and what must be copied before a
 * shared page is written.  Host code above the graph. */
#include <string.h>

#include "core.h"

struct attend_kv {
    attend_ctx *ctx;
    struct at_err err;
    int64_t pages, page, sequences, width;
    int32_t *users; /* [pages]: sequences that have the page */
    int32_t *free;  /* [nfree]: a stack of pages that nobody has */
    int64_t nfree;
    int32_t *table;  /* [sequences][width]: -1 where there is no page */
    int64_t *length; /* [sequences]: keys, -1 where the sequence is not open */
    int32_t *copies; /* [2 * ncopies]: from, to; room for `pages` of them */
    int64_t ncopies;
};

int attend_kv_new(attend_ctx *ctx, int64_t pages, int64_t page, int64_t sequences, int64_t width,
                  attend_kv **out)
{
    *out = NULL;
    bool sane = pages >= 1 && page >= 1 && sequences >= 1 && width >= 1 &&
                pages <= INT32_MAX / page && sequences <= INT32_MAX && width <= INT32_MAX;
    if (!sane)
        return ATTEND_EINVAL;
    attend_kv *kv = at_calloc(ctx, 1, sizeof *kv);
    if (!kv)
        return ATTEND_ENOMEM;
    *kv = (attend_kv){
        .ctx = ctx, .pages = pages, .page = page, .sequences = sequences, .width = width};
    kv->users = at_calloc(ctx, pages, sizeof *kv->users);
    kv->free = at_calloc(ctx, pages, sizeof *kv->free);
    kv->copies = at_calloc(ctx, pages, 2 * sizeof *kv->copies);
    kv->length = at_calloc(ctx, sequences, sizeof *kv->length);
    kv->table = at_calloc(ctx, at_mul_size(sequences, width), sizeof *kv->table);
    if (!kv->users || !kv->free || !kv->copies || !kv->length || !kv->table) {
        attend_kv_free(kv);
        return ATTEND_ENOMEM;
    }
    for (int64_t p = pages - 1; p >= 0; p--) /* so that page 0 is given first */
        kv->free[kv->nfree++] = (int32_t)p;
    for (int64_t s = 0; s < sequences; s++)
        kv->length[s] = -1;
    memset(kv->table, -1, (size_t)(sequences * width) * sizeof *kv->table);
    *out = kv;
    return 0;
}

void attend_kv_free(attend_kv *kv)
{
    if (!kv)
        return;
    at_free(kv->ctx, kv->users);
    at_free(kv->ctx, kv->free);
    at_free(kv->ctx, kv->copies);
    at_free(kv->ctx, kv->length);
    at_free(kv->ctx, kv->table);
    at_free(kv->ctx, kv);
}

const char *attend_kv_error(const attend_kv *kv)
{
    return kv ? kv->err.text : "no KV cache";
}

static bool is_open(const attend_kv *kv, int seq)
{
    return seq >= 0 && seq < kv->sequences && kv->length[seq] >= 0;
}

static int not_open(attend_kv *kv, int seq)
{
    at_err_clear(&kv->err);
    return at_fail(&kv->err, ATTEND_EINVAL, "KV cache: there is no sequence %d", seq);
}

static int32_t *row_of(const attend_kv *kv, int seq)
{
    return kv->table + seq * kv->width;
}

static void release(attend_kv *kv, int32_t page)
{
    if (page >= 0 && --kv->users[page] == 0)
        kv->free[kv->nfree++] = page;
}

static int32_t take(attend_kv *kv)
{
    int32_t page = kv->free[--kv->nfree];
    kv->users[page] = 1;
    return page;
}

int attend_kv_open(attend_kv *kv)
{
    at_err_clear(&kv->err);
    for (int s = 0; s < kv->sequences; s++)
        if (kv->length[s] < 0) {
            kv->length[s] = 0;
            return s;
        }
    return at_fail(&kv->err, ATTEND_ELIMIT, "KV cache: all %lld sequences are open",
                   (long long)kv->sequences);
}

int attend_kv_fork(attend_kv *kv, int seq)
{
    if (!is_open(kv, seq))
        return not_open(kv, seq);
    int copy = attend_kv_open(kv);
    if (copy < 0)
        return copy;
    kv->length[copy] = kv->length[seq];
    memcpy(row_of(kv, copy), row_of(kv, seq), (size_t)kv->width * sizeof *kv->table);
    for (int64_t p = 0; p < kv->width; p++)
        if (row_of(kv, copy)[p] >= 0)
            kv->users[row_of(kv, copy)[p]]++;
    return copy;
}

void attend_kv_close(attend_kv *kv, int seq)
{
    if (!is_open(kv, seq))
        return;
    for (int64_t p = 0; p < kv->width; p++) {
        release(kv, row_of(kv, seq)[p]);
        row_of(kv, seq)[p] = -1;
    }
    kv->length[seq] = -1;
}

/* The page in which the next key comes, where it is begun already and others have it too, or -1. */
static int64_t shared_tail(const attend_kv *kv, int seq)
{
    int64_t p = kv->length[seq] / kv->page;
    if (kv->length[seq] % kv->page == 0 || row_of(kv, seq)[p] < 0)
        return -1;
    return kv->users[row_of(kv, seq)[p]] > 1 ? p : -1;
}

int attend_kv_extend(attend_kv *kv, int seq, int64_t n, int32_t *slots)
{
    if (!is_open(kv, seq))
        return not_open(kv, seq);
    at_err_clear(&kv->err);
    int64_t length = kv->length[seq], shared = n > 0 ? shared_tail(kv, seq) : -1;
    if (n < 0 || n > kv->width * kv->page - length)
        return at_fail(&kv->err, ATTEND_ELIMIT,
                       "KV cache: sequence %d has %lld keys and room for %lld, not for %lld more",
                       seq, (long long)length, (long long)(kv->width * kv->page), (long long)n);
    int64_t from = at_ceil_div(length, kv->page), to = at_ceil_div(length + n, kv->page);
    int64_t need = to - from + (shared >= 0);
    if (shared >= 0 && kv->ncopies == kv->pages)
        return at_fail(&kv->err, ATTEND_ESTATE, "KV cache: %lld copies wait for attend_kv_copies",
                       (long long)kv->ncopies);
    if (need > kv->nfree)
        return at_fail(
            &kv->err, ATTEND_ENOMEM,
            "KV cache: %lld more keys of sequence %d need %lld pages, %lld of %lld are free",
            (long long)n, seq, (long long)need, (long long)kv->nfree, (long long)kv->pages);
    int32_t *row = row_of(kv, seq);
    if (shared >= 0) {
        int32_t old = row[shared];
        row[shared] = take(kv);
        release(kv, old);
        kv->copies[2 * kv->ncopies] = old;
        kv->copies[2 * kv->ncopies++ + 1] = row[shared];
    }
    for (int64_t p = from; p < to; p++)
        row[p] = take(kv);
    for (int64_t i = 0; i < n; i++)
        slots[i] = (int32_t)(row[(length + i) / kv->page] * kv->page + (length + i) % kv->page);
    kv->length[seq] = length + n;
    return 0;
}

int attend_kv_truncate(attend_kv *kv, int seq, int64_t length)
{
    if (!is_open(kv, seq))
        return not_open(kv, seq);
    at_err_clear(&kv->err);
    if (length < 0 || length > kv->length[seq])
        return at_fail(&kv->err, ATTEND_EINVAL,
                       "KV cache: sequence %d has %lld keys, cannot be cut to %lld", seq,
                       (long long)kv->length[seq], (long long)length);
    for (int64_t p = at_ceil_div(length, kv->page); p < kv->width; p++) {
        release(kv, row_of(kv, seq)[p]);
        row_of(kv, seq)[p] = -1;
    }
    kv->length[seq] = length;
    return 0;
}

int attend_kv_forget(attend_kv *kv, int seq, int64_t first)
{
    if (!is_open(kv, seq))
        return not_open(kv, seq);
    for (int64_t p = 0; (p + 1) * kv->page <= at_min(first, kv->length[seq]); p++) {
        release(kv, row_of(kv, seq)[p]);
        row_of(kv, seq)[p] = -1;
    }
    return 0;
}

int64_t attend_kv_copies(attend_kv *kv, int32_t *copies, int64_t room)
{
    int64_t n = at_min(room, kv->ncopies);
    if (n <= 0)
        return 0;
    memcpy(copies, kv->copies, (size_t)n * 2 * sizeof *copies);
    kv->ncopies -= n;
    memmove(kv->copies, kv->copies + 2 * n, (size_t)kv->ncopies * 2 * sizeof *copies);
    return n;
}

int64_t attend_kv_length(const attend_kv *kv, int seq)
{
    return is_open(kv, seq) ? kv->length[seq] : 0;
}

int64_t attend_kv_free_pages(const attend_kv *kv)
{
    return kv->nfree;
}

int attend_kv_table(const attend_kv *kv, int seq, int32_t *row)
{
    if (!is_open(kv, seq))
        return ATTEND_EINVAL;
    memcpy(row, row_of(kv, seq), (size_t)kv->width * sizeof *row);
    return 0;
}
