/* SPDX-License-Identifier: MIT */
/* Byte-level BPE (Radford et al. 2019; Sennrich et al. 2016).  Text is cut into words by character
 * class; in each word, beginning from single bytes, the adjacent pair that was learned first is
 * merged until no pair is left that was learned. */
#include "models.h"
#include "say.h"
#include "utf8.h"
#include "words.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    SHOWN = 60,   /* bytes of a token in a sentence */
    LETTERS = 324 /* letters of the byte alphabet are below U+0144 */
};

/* tokenizer.ggml.token_type */
enum token_type { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

struct merge {
    int32_t left, right, merged;
};

struct named {
    attend_str name;
    int32_t id;
};

/* Open addressing; a slot holds an index into an array that has the keys, or -1. */
struct table {
    int32_t *slot;
    uint64_t mask;
};

struct attend_tokenizer {
    int32_t count;
    unsigned char *type;  /* [count] */
    unsigned char *bytes; /* all pieces, end to end */
    size_t *start;        /* [count + 1] of a piece in bytes */
    struct merge *merges; /* by rank: the first was learned first */
    int32_t merge_count;
    struct table pairs;   /* (left, right) -> rank */
    int32_t of_byte[256]; /* token of a single byte; -1: the vocabulary lacks it */
    struct named *named;  /* tokens found by name in text: by first byte, longest first */
    int32_t named_count;
    int32_t named_at[257]; /* where those of each first byte start */
    int32_t bos, eos, eot; /* -1: none */
};

/* ---- the byte alphabet ---- */

/* Vocabularies are text: each byte is written as a printable character.  Bytes that are printable
 * in Latin-1 stand for themselves, the others for U+0100 up, in order. */
static bool is_printable(unsigned byte)
{
    return (byte > 32 && byte < 127) || (byte > 160 && byte != 173);
}

static uint32_t letter_of(unsigned byte)
{
    uint32_t next = 256;
    for (unsigned b = 0; b < byte; b++)
        next += !is_printable(b);
    return is_printable(byte) ? byte : next;
}

static size_t write_letter(uint32_t letter, char *out) /* always below U+0800 */
{
    if (letter < 0x80) {
        out[0] = (char)letter;
        return 1;
    }
    out[0] = (char)(0xc0 | letter >> 6);
    out[1] = (char)(0x80 | (letter & 0x3f));
    return 2;
}

/* ---- tables ---- */

static uint64_t mix(uint64_t x) /* splitmix64's finaliser */
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint64_t hash_bytes(uint64_t h, attend_str s) /* FNV-1a */
{
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (unsigned char)s.s[i]) * 0x100000001b3u;
    return h;
}

static bool table_init(struct table *t, int64_t count)
{
    uint64_t size = 16;
    while (size < 2 * (uint64_t)count)
        size *= 2;
    t->mask = size - 1;
    t->slot = malloc(size * sizeof(*t->slot));
    for (uint64_t i = 0; t->slot && i < size; i++)
        t->slot[i] = -1;
    return t->slot != NULL;
}

/* The slot that holds the token whose text is a then b, or the empty slot where it would go. */
static int32_t *find_text(const struct table *t, const attend_str *text, attend_str a, attend_str b)
{
    uint64_t i = mix(hash_bytes(hash_bytes(0xcbf29ce484222325u, a), b)) & t->mask;
    for (; t->slot[i] >= 0; i = (i + 1) & t->mask) {
        attend_str s = text[t->slot[i]];
        if (s.n == a.n + b.n && memcmp(s.s, a.s, a.n) == 0 && memcmp(s.s + a.n, b.s, b.n) == 0)
            break;
    }
    return &t->slot[i];
}

static int32_t *find_pair(const struct table *t, const struct merge *merges, int32_t left,
                          int32_t right)
{
    uint64_t i = mix((uint64_t)(uint32_t)left << 32 | (uint32_t)right) & t->mask;
    for (; t->slot[i] >= 0; i = (i + 1) & t->mask)
        if (merges[t->slot[i]].left == left && merges[t->slot[i]].right == right)
            break;
    return &t->slot[i];
}

/* ---- reading the vocabulary ---- */

/* What only the making of a tokenizer needs: the tokens as the file spells them. */
struct maker {
    attend_tokenizer *t;
    const attend_gguf *g;
    attend_str *text; /* [count], in the file */
    struct table texts;
    int16_t byte_of[LETTERS]; /* the byte that a letter means, or -1 */
    char *err;
    size_t errlen;
};

static const attend_str nothing = {"", 0};

static int shown(attend_str s)
{
    return s.n < SHOWN ? (int)s.n : SHOWN;
}

static int no_memory(struct maker *m)
{
    return at_say(m->err, m->errlen, ATTEND_ENOMEM,
                  "no memory for a vocabulary of %" PRId32 " tokens", m->t->count);
}

/* The array of strings `key`, with at least one element and fewer than 2^30 of them. */
static int need_strs(struct maker *m, const char *key, attend_gguf_array *a)
{
    int got = attend_gguf_strs(m->g, key, a, m->err, m->errlen);
    if (got < 0)
        return got;
    if (!got)
        return at_say(m->err, m->errlen, ATTEND_EFORMAT, "the file has no key '%s'", key);
    if (a->count == 0 || a->count > INT32_MAX / 2)
        return at_say(m->err, m->errlen, ATTEND_EFORMAT, "key '%s' has %" PRId64 " elements", key,
                      a->count);
    return 0;
}

static int check_kind(struct maker *m)
{
    static const char *const keys[] = {"tokenizer.ggml.model", "tokenizer.ggml.pre"};
    static const char *const known[] = {"gpt2", "smollm"};
    for (int i = 0; i < 2; i++) {
        attend_str s = nothing;
        int got = attend_gguf_str(m->g, keys[i], &s, m->err, m->errlen);
        if (got < 0)
            return got;
        if (!got)
            return at_say(m->err, m->errlen, ATTEND_EFORMAT, "the file has no key '%s'", keys[i]);
        if (s.n != strlen(known[i]) || memcmp(s.s, known[i], s.n) != 0)
            return at_say(m->err, m->errlen, ATTEND_EUNSUPPORTED,
                          "%s '%.*s' is not supported; '%s' is", keys[i], shown(s), s.s, known[i]);
    }
    return 0;
}

static int read_texts(struct maker *m)
{
    attend_gguf_array a;
    int status = need_strs(m, "tokenizer.ggml.tokens", &a);
    if (status < 0)
        return status;
    m->t->count = (int32_t)a.count;
    m->text = malloc((size_t)a.count * sizeof(*m->text));
    if (!m->text || !table_init(&m->texts, a.count))
        return no_memory(m);
    for (int32_t id = 0; attend_gguf_array_next(&a, &m->text[id]); id++) {
        attend_str s = m->text[id];
        if (s.n == 0)
            return at_say(m->err, m->errlen, ATTEND_EFORMAT, "token %" PRId32 " is empty", id);
        int32_t *slot = find_text(&m->texts, m->text, s, nothing);
        if (*slot >= 0)
            return at_say(m->err, m->errlen, ATTEND_EFORMAT,
                          "tokens %" PRId32 " and %" PRId32 " are both '%.*s'", *slot, id, shown(s),
                          s.s);
        *slot = id;
    }
    return 0;
}

static int read_types(struct maker *m)
{
    attend_tokenizer *t = m->t;
    attend_gguf_array a = {.count = t->count};
    t->type = malloc((size_t)t->count);
    if (!t->type)
        return no_memory(m);
    memset(t->type, NORMAL, (size_t)t->count);
    int got = attend_gguf_ints(m->g, "tokenizer.ggml.token_type", &a, m->err, m->errlen);
    if (got < 0)
        return got;
    if (a.count != t->count)
        return at_say(m->err, m->errlen, ATTEND_EFORMAT,
                      "tokenizer.ggml.token_type has %" PRId64 " elements for %" PRId32 " tokens",
                      a.count, t->count);
    for (int32_t id = 0; got && id < t->count; id++) {
        int64_t type = attend_gguf_array_int(&a, id);
        if (type < NORMAL || type > BYTE)
            return at_say(m->err, m->errlen, ATTEND_EFORMAT,
                          "token %" PRId32 " has type %" PRId64 "; there are types %d to %d", id,
                          type, NORMAL, BYTE);
        t->type[id] = (unsigned char)type;
    }
    return 0;
}

static bool is_named(const attend_tokenizer *t, int32_t id)
{
    return t->type[id] == CONTROL || t->type[id] == USER_DEFINED || t->type[id] == UNKNOWN;
}

/* The bytes that text means in the byte alphabet, or -1 where it has other characters. */
static int64_t read_letters(const struct maker *m, attend_str text, unsigned char *out)
{
    int64_t n = 0;
    for (size_t at = 0; at < text.n; n++) {
        uint32_t c;
        int length = at_utf8_next((const unsigned char *)text.s + at, text.n - at, &c);
        if (length <= 0 || c >= LETTERS || m->byte_of[c] < 0)
            return -1;
        out[n] = (unsigned char)m->byte_of[c];
        at += (size_t)length;
    }
    return n;
}

/* Single bytes: their letters, and the tokens that these are. */
static void map_bytes(struct maker *m)
{
    memset(m->byte_of, -1, sizeof(m->byte_of));
    for (unsigned b = 0; b < 256; b++) {
        char letter[2];
        attend_str s = {letter, write_letter(letter_of(b), letter)};
        m->byte_of[letter_of(b)] = (int16_t)b;
        m->t->of_byte[b] = *find_text(&m->texts, m->text, s, nothing);
    }
}

/* Named tokens are spelled as they are, the others in the byte alphabet. */
static int make_pieces(struct maker *m)
{
    attend_tokenizer *t = m->t;
    size_t total = 0;
    for (int32_t id = 0; id < t->count; id++)
        total += m->text[id].n;
    t->bytes = malloc(total);
    t->start = malloc(((size_t)t->count + 1) * sizeof(*t->start));
    if (!t->bytes || !t->start)
        return no_memory(m);
    size_t at = 0;
    for (int32_t id = 0; id < t->count; id++) {
        t->start[id] = at;
        int64_t n = is_named(t, id) ? -1 : read_letters(m, m->text[id], t->bytes + at);
        if (n < 0) {
            memcpy(t->bytes + at, m->text[id].s, m->text[id].n);
            n = (int64_t)m->text[id].n;
        }
        at += (size_t)n;
    }
    t->start[t->count] = at;
    return 0;
}

/* "left right"; no token has a space in it, other than in first place. */
static int read_merge(struct maker *m, attend_str s, int32_t rank)
{
    attend_tokenizer *t = m->t;
    const char *space = s.n > 2 ? memchr(s.s + 1, ' ', s.n - 1) : NULL;
    if (!space)
        return at_say(m->err, m->errlen, ATTEND_EFORMAT,
                      "merge %" PRId32 ", '%.*s', is not two tokens", rank, shown(s), s.s);
    attend_str left = {s.s, (size_t)(space - s.s)}, right = {space + 1, s.n - left.n - 1};
    struct merge merge = {*find_text(&m->texts, m->text, left, nothing),
                          *find_text(&m->texts, m->text, right, nothing),
                          *find_text(&m->texts, m->text, left, right)};
    if (merge.left < 0 || merge.right < 0 || merge.merged < 0)
        return at_say(m->err, m->errlen, ATTEND_EFORMAT,
                      "merge %" PRId32 ", '%.*s', is of or makes a token that is not in the "
                      "vocabulary",
                      rank, shown(s), s.s);
    int32_t *slot = find_pair(&t->pairs, t->merges, merge.left, merge.right);
    if (*slot >= 0)
        return at_say(m->err, m->errlen, ATTEND_EFORMAT,
                      "merges %" PRId32 " and %" PRId32 " are both '%.*s'", *slot, rank, shown(s),
                      s.s);
    t->merges[rank] = merge;
    *slot = rank;
    return 0;
}

static int read_merges(struct maker *m)
{
    attend_gguf_array a;
    attend_str s;
    int status = need_strs(m, "tokenizer.ggml.merges", &a);
    if (status < 0)
        return status;
    m->t->merge_count = (int32_t)a.count;
    m->t->merges = malloc((size_t)a.count * sizeof(*m->t->merges));
    if (!m->t->merges || !table_init(&m->t->pairs, a.count))
        return no_memory(m);
    for (int32_t rank = 0; status == 0 && attend_gguf_array_next(&a, &s); rank++)
        status = read_merge(m, s, rank);
    return status;
}

static int by_first_byte(const void *a, const void *b)
{
    attend_str s = ((const struct named *)a)->name, t = ((const struct named *)b)->name;
    if (s.s[0] != t.s[0])
        return (unsigned char)s.s[0] < (unsigned char)t.s[0] ? -1 : 1;
    return (s.n < t.n) - (s.n > t.n);
}

static int index_named(struct maker *m)
{
    attend_tokenizer *t = m->t;
    for (int32_t id = 0; id < t->count; id++)
        t->named_count += is_named(t, id);
    t->named = malloc(((size_t)t->named_count + 1) * sizeof(*t->named));
    if (!t->named)
        return no_memory(m);
    for (int32_t id = 0, n = 0; id < t->count; id++)
        if (is_named(t, id)) {
            t->named[n++] = (struct named){attend_tokenizer_piece(t, id), id};
            t->named_at[t->bytes[t->start[id]] + 1]++;
        }
    qsort(t->named, (size_t)t->named_count, sizeof(*t->named), by_first_byte);
    for (int b = 0; b < 256; b++)
        t->named_at[b + 1] += t->named_at[b];
    return 0;
}

/* The token that a key names; -1 where the file has no such key. */
static int read_id(struct maker *m, const char *key, int32_t *id)
{
    int64_t v = -1;
    int got = attend_gguf_int(m->g, key, &v, m->err, m->errlen);
    if (got < 0)
        return got;
    if (got && (v < 0 || v >= m->t->count))
        return at_say(m->err, m->errlen, ATTEND_EFORMAT,
                      "%s is %" PRId64 ", but there are %" PRId32 " tokens", key, v, m->t->count);
    *id = (int32_t)v;
    return 0;
}

static int read_ids(struct maker *m)
{
    attend_tokenizer *t = m->t;
    int64_t add_bos = 0;
    int status = attend_gguf_int(m->g, "tokenizer.ggml.add_bos_token", &add_bos, m->err, m->errlen);
    if (status < 0 || (status = read_id(m, "tokenizer.ggml.bos_token_id", &t->bos)) < 0 ||
        (status = read_id(m, "tokenizer.ggml.eos_token_id", &t->eos)) < 0)
        return status;
    if (add_bos && t->bos < 0)
        return at_say(m->err, m->errlen, ATTEND_EFORMAT,
                      "add_bos_token is set, but there is no bos_token_id");
    if (!add_bos)
        t->bos = -1;
    return read_id(m, "tokenizer.ggml.eot_token_id", &t->eot);
}

static int make(struct maker *m)
{
    int status;
    if ((status = check_kind(m)) < 0 || (status = read_texts(m)) < 0 ||
        (status = read_types(m)) < 0)
        return status;
    map_bytes(m);
    if ((status = make_pieces(m)) < 0 || (status = read_merges(m)) < 0 ||
        (status = index_named(m)) < 0)
        return status;
    return read_ids(m);
}

int attend_tokenizer_new(const attend_gguf *g, attend_tokenizer **out, char *err, size_t errlen)
{
    *out = NULL;
    if (!at_words_known())
        return at_say(err, errlen, ATTEND_EUNSUPPORTED,
                      "this library was built without utf8proc, which its tokenizer needs");
    struct maker m = {.t = calloc(1, sizeof(*m.t)), .g = g, .err = err, .errlen = errlen};
    if (!m.t)
        return at_say(err, errlen, ATTEND_ENOMEM, "no memory for a tokenizer");
    int status = make(&m);
    free(m.text);
    free(m.texts.slot);
    if (status < 0)
        attend_tokenizer_free(m.t);
    else
        *out = m.t;
    return status;
}

void attend_tokenizer_free(attend_tokenizer *t)
{
    if (!t)
        return;
    free(t->type);
    free(t->bytes);
    free(t->start);
    free(t->merges);
    free(t->pairs.slot);
    free(t->named);
    free(t);
}

/* ---- merging ---- */

/* The tokens of a word, a list through an array; id -1: merged away, or a byte without a token. */
struct symbol {
    int32_t id, prev, next;
};

/* Space for one word at a time.  Each mergeable pair stands in the heap as rank << 32 | position of
 * its left symbol, so that the least is what to merge next: the first learned, leftmost. */
struct work {
    struct symbol *symbol;
    uint64_t *heap;
    size_t count,
        room; /* entries of heap; symbols there is space for, with twice as many entries */
};

static bool work_reserve(struct work *w, size_t n)
{
    if (n <= w->room)
        return true;
    size_t room = n < 64 ? 64 : n;
    free(w->symbol);
    free(w->heap);
    w->symbol = malloc(room * sizeof(*w->symbol));
    w->heap = malloc(2 * room * sizeof(*w->heap));
    w->room = w->symbol && w->heap ? room : 0;
    return w->room > 0;
}

static void heap_push(struct work *w, uint64_t entry)
{
    size_t i = w->count++;
    for (; i > 0 && w->heap[(i - 1) / 2] > entry; i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = entry;
}

static uint64_t heap_pop(struct work *w)
{
    uint64_t top = w->heap[0], entry = w->heap[--w->count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w->count; i = child) {
        child += child + 1 < w->count && w->heap[child + 1] < w->heap[child];
        if (w->heap[child] >= entry)
            break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = entry;
    return top;
}

/* A word of n symbols enters at most n - 1 pairs, and each merge takes one out and adds at most
 * two: never more than 2n. */
static void push_pair(const attend_tokenizer *t, struct work *w, int32_t left)
{
    if (left < 0 || w->symbol[left].next < 0)
        return;
    int32_t rank =
        *find_pair(&t->pairs, t->merges, w->symbol[left].id, w->symbol[w->symbol[left].next].id);
    if (rank >= 0)
        heap_push(w, (uint64_t)rank << 32 | (uint32_t)left);
}

static void merge_at(const attend_tokenizer *t, struct work *w, int32_t rank, int32_t at)
{
    struct symbol *left = &w->symbol[at];
    const struct merge *m = &t->merges[rank];
    if (left->id != m->left || left->next < 0 || w->symbol[left->next].id != m->right)
        return; /* an earlier merge took one of the two */
    w->symbol[left->next].id = -1;
    left->id = m->merged;
    left->next = w->symbol[left->next].next;
    if (left->next >= 0)
        w->symbol[left->next].prev = at;
    push_pair(t, w, left->prev);
    push_pair(t, w, at);
}

/* Writes the tokens of a word of n bytes to ids; returns their number. */
static size_t encode_word(const attend_tokenizer *t, struct work *w, const unsigned char *p,
                          size_t n, int32_t *ids)
{
    size_t got = 0;
    for (size_t i = 0; i < n; i++)
        w->symbol[i] =
            (struct symbol){t->of_byte[p[i]], (int32_t)i - 1, i + 1 < n ? (int32_t)i + 1 : -1};
    w->count = 0;
    for (size_t i = 0; i + 1 < n; i++)
        push_pair(t, w, (int32_t)i);
    while (w->count > 0) {
        uint64_t top = heap_pop(w);
        merge_at(t, w, (int32_t)(top >> 32), (int32_t)(top & UINT32_MAX));
    }
    for (int32_t i = 0; i >= 0; i = w->symbol[i].next)
        if (w->symbol[i].id >= 0)
            ids[got++] = w->symbol[i].id;
    return got;
}

/* Adds the tokens of n bytes of text without named tokens to ids; false: no memory. */
static bool encode_text(const attend_tokenizer *t, struct work *w, const unsigned char *p, size_t n,
                        int32_t *ids, size_t *got)
{
    for (size_t at = 0; at < n;) {
        size_t length = at_words_next(p + at, n - at);
        if (!work_reserve(w, length))
            return false;
        *got += encode_word(t, w, p + at, length, ids + *got);
        at += length;
    }
    return true;
}

/* The longest named token that text starts with, or NULL. */
static const struct named *named_at(const attend_tokenizer *t, const unsigned char *p, size_t n,
                                    int special)
{
    for (int32_t i = t->named_at[p[0]]; i < t->named_at[p[0] + 1]; i++) {
        attend_str name = t->named[i].name;
        if ((special || t->type[t->named[i].id] == USER_DEFINED) && name.n <= n &&
            memcmp(name.s, p, name.n) == 0)
            return &t->named[i];
    }
    return NULL;
}

static int check_utf8(const unsigned char *p, size_t n, char *err, size_t errlen)
{
    uint32_t c;
    for (size_t at = 0; at < n;) {
        int length = at_utf8_next(p + at, n - at, &c);
        if (length <= 0)
            return at_say(err, errlen, ATTEND_EINVAL,
                          "the text is not UTF-8: byte %zu of %zu is 0x%02x, %s", at, n, p[at],
                          length < 0 ? "which cannot stand there" : "and its character is cut off");
        at += (size_t)length;
    }
    return 0;
}

int64_t attend_tokenizer_encode(const attend_tokenizer *t, const char *text, size_t n, int special,
                                int32_t *ids, char *err, size_t errlen)
{
    const unsigned char *p = (const unsigned char *)text;
    struct work w = {0};
    size_t got = 0, from = 0;
    if (n > INT32_MAX)
        return at_say(err, errlen, ATTEND_ELIMIT, "a text of %zu bytes is above the limit of %d", n,
                      INT32_MAX);
    int status = check_utf8(p, n, err, errlen);
    if (status < 0)
        return status;
    bool ok = true;
    for (size_t at = 0; at < n && ok;) {
        const struct named *named = named_at(t, p + at, n - at, special);
        if (!named) {
            at++;
            continue;
        }
        ok = encode_text(t, &w, p + from, at - from, ids, &got);
        ids[got++] = named->id;
        from = at += named->name.n;
    }
    ok = ok && encode_text(t, &w, p + from, n - from, ids, &got);
    free(w.symbol);
    free(w.heap);
    return ok ? (int64_t)got
              : at_say(err, errlen, ATTEND_ENOMEM, "no memory to split %zu bytes", n);
}

/* ---- what a token is ---- */

int32_t attend_tokenizer_size(const attend_tokenizer *t)
{
    return t->count;
}

int32_t attend_tokenizer_bos(const attend_tokenizer *t)
{
    return t->bos;
}

attend_str attend_tokenizer_piece(const attend_tokenizer *t, int32_t id)
{
    if (id < 0 || id >= t->count)
        return (attend_str){NULL, 0};
    return (attend_str){(const char *)t->bytes + t->start[id], t->start[id + 1] - t->start[id]};
}

/* Files name one end token; models use more. */
static bool ends(const attend_tokenizer *t, int32_t id)
{
    static const char *const names[] = {"<|endoftext|>", "<|im_end|>", "<|eot_id|>",
                                        "<|end_of_text|>"};
    attend_str piece = attend_tokenizer_piece(t, id);
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (piece.n == strlen(names[i]) && memcmp(piece.s, names[i], piece.n) == 0)
            return t->type[id] == CONTROL;
    return id == t->eos || id == t->eot;
}

int attend_tokenizer_kind(const attend_tokenizer *t, int32_t id)
{
    if (id < 0 || id >= t->count)
        return ATTEND_EINVAL;
    if (ends(t, id))
        return ATTEND_TOKEN_END;
    return t->type[id] == CONTROL || t->type[id] == UNKNOWN ? ATTEND_TOKEN_CONTROL
                                                            : ATTEND_TOKEN_TEXT;
}
