/* SPDX-License-Identifier: MIT */
/* WordPiece (Schuster & Nakajima 2012), as BERT uses it (Devlin et al. 2019).  Text is cleaned, in
 * uncased vocabularies stripped of accents and put in lower case, and cut at white space, at
 * punctuation and around Chinese characters; each word becomes the longest piece of the vocabulary
 * that it begins with, then the longest "##piece" that the rest begins with, and so on, or [UNK].
 */
#include "models.h"
#include "os.h"
#include "say.h"
#include "utf8.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#ifdef HAVE_UTF8PROC
#    include <utf8proc.h>
#endif

enum { LONGEST = 100 /* characters of a word; a longer one is [UNK] */, SHOWN = 60 };

/* Tokens that have a meaning besides their letters: found by name in raw text. */
enum special { CLS, SEP, UNK, PAD, MASK, SPECIALS };
static const char *const special_name[] = {"[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]"};

struct attend_wordpiece {
    bool lower;
    char *text;        /* the file */
    attend_str *piece; /* [count], in text */
    int32_t count;
    int32_t *slot; /* open addressing: an id, or -1 */
    uint32_t mask;
    size_t longest;            /* bytes of a piece */
    int32_t special[SPECIALS]; /* ids; -1: the vocabulary has none */
};

/* ---- the vocabulary ---- */

static uint32_t hash(const char *s, size_t n) /* FNV-1a */
{
    uint32_t h = 0x811c9dc5u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)s[i]) * 0x01000193u;
    return h;
}

/* The slot that holds the piece, or the empty one where it would go. */
static int32_t *find_slot(const attend_wordpiece *t, const char *s, size_t n)
{
    uint32_t i = hash(s, n) & t->mask;
    for (; t->slot[i] >= 0; i = (i + 1) & t->mask) {
        attend_str p = t->piece[t->slot[i]];
        if (p.n == n && memcmp(p.s, s, n) == 0)
            break;
    }
    return &t->slot[i];
}

static bool allocate(attend_wordpiece *t, size_t lines)
{
    size_t slots = 16;
    while (slots < 2 * lines)
        slots *= 2;
    t->mask = (uint32_t)(slots - 1);
    t->piece = malloc((lines + 1) * sizeof *t->piece);
    t->slot = malloc(slots * sizeof *t->slot);
    for (size_t i = 0; t->slot && i < slots; i++)
        t->slot[i] = -1;
    return t->piece && t->slot;
}

/* One piece a line; the line's number is its id. */
static int read_pieces(attend_wordpiece *t, size_t n, char *err, size_t errlen)
{
    size_t lines = n > 0 && t->text[n - 1] != '\n';
    for (size_t i = 0; i < n; i++)
        lines += t->text[i] == '\n';
    if (lines == 0 || lines > INT32_MAX / 4)
        return at_say(err, errlen, ATTEND_EFORMAT, "the vocabulary has %zu lines", lines);
    if (!allocate(t, lines))
        return at_say(err, errlen, ATTEND_ENOMEM, "no memory for a vocabulary of %zu pieces",
                      lines);
    for (const char *at = t->text, *end = t->text + n; at < end;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((stop ? stop : end) - at);
        attend_str p = {at, length > 0 && at[length - 1] == '\r' ? length - 1 : length};
        int32_t *slot = find_slot(t, p.s, p.n);
        if (p.n == 0 || *slot >= 0)
            return at_say(err, errlen, ATTEND_EFORMAT, "line %" PRId32 ", '%.*s', is %s",
                          t->count + 1, (int)(p.n < SHOWN ? p.n : SHOWN), p.s,
                          p.n ? "there twice" : "empty");
        t->longest = p.n > t->longest ? p.n : t->longest;
        t->piece[t->count] = p;
        *slot = t->count++;
        at += length + 1;
    }
    return 0;
}

static int find_specials(attend_wordpiece *t, char *err, size_t errlen)
{
    for (int i = 0; i < SPECIALS; i++) {
        t->special[i] = *find_slot(t, special_name[i], 5 + (i == MASK));
        if (t->special[i] < 0 && i <= UNK)
            return at_say(err, errlen, ATTEND_EFORMAT, "the vocabulary has no %s", special_name[i]);
    }
    return 0;
}

static int read_file(attend_wordpiece *t, const char *path, char *err, size_t errlen)
{
    struct at_os_map map;
    if (at_os_map_file(&map, path, err, errlen) < 0)
        return ATTEND_EIO;
    size_t n = map.size;
    t->text = malloc(n + 1);
    if (t->text)
        memcpy(t->text, map.data, n);
    at_os_unmap(&map);
    if (!t->text)
        return at_say(err, errlen, ATTEND_ENOMEM, "no memory for the %zu bytes of %s", n, path);
    char why[200] = "";
    int status = read_pieces(t, n, why, sizeof why);
    if (status == 0)
        status = find_specials(t, why, sizeof why);
    return status < 0 ? at_say(err, errlen, status, "%s: %s", path, why) : 0;
}

int attend_wordpiece_open(const char *path, int lower, attend_wordpiece **out, char *err,
                          size_t errlen)
{
    *out = NULL;
#ifndef HAVE_UTF8PROC
    (void)path;
    (void)lower;
    (void)read_file;
    return at_say(err, errlen, ATTEND_EUNSUPPORTED,
                  "this library was built without utf8proc (Debian: libutf8proc-dev), which knows "
                  "the characters of words");
#else
    attend_wordpiece *t = calloc(1, sizeof *t);
    if (!t)
        return at_say(err, errlen, ATTEND_ENOMEM, "no memory for a tokenizer");
    t->lower = lower != 0;
    int status = read_file(t, path, err, errlen);
    if (status < 0)
        attend_wordpiece_free(t);
    else
        *out = t;
    return status;
#endif
}

void attend_wordpiece_free(attend_wordpiece *t)
{
    if (!t)
        return;
    free(t->text);
    free(t->piece);
    free(t->slot);
    free(t);
}

int32_t attend_wordpiece_size(const attend_wordpiece *t)
{
    return t->count;
}

attend_str attend_wordpiece_piece(const attend_wordpiece *t, int32_t id)
{
    return id >= 0 && id < t->count ? t->piece[id] : (attend_str){NULL, 0};
}

#ifdef HAVE_UTF8PROC

/* ---- characters ---- */

static bool is_chinese(uint32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
           (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
           (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

static bool is_space(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return c == '\t' || c == '\n' || c == '\r' || k == UTF8PROC_CATEGORY_ZS ||
           k == UTF8PROC_CATEGORY_ZL || k == UTF8PROC_CATEGORY_ZP;
}

/* What is taken out of a text, after is_space. */
static bool is_dirt(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return c == 0xfffd || k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF ||
           k == UTF8PROC_CATEGORY_CO;
}

/* All of ASCII that is no letter, number or blank, too. */
static bool is_punctuation(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    if (c < 128)
        return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
               (c >= 123 && c <= 126);
    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

/* ---- words ---- */

/* A word that grows, and the tokens so far. */
struct words {
    const attend_wordpiece *t;
    int32_t *id;
    int64_t count;
    char word[2 + 4 * LONGEST]; /* behind a place for "##" */
    size_t n;                   /* its bytes */
    size_t chars;
};

/* The longest piece that the bytes [at, n) of the word begin with; its bytes to *length, 0: none.
 */
static int32_t longest_piece(struct words *w, size_t at, size_t *length)
{
    char *from = w->word + 2 + at;
    size_t mark = at > 0 ? 2 : 0, most = w->n - at;
    if (most + mark > w->t->longest)
        most = w->t->longest > mark ? w->t->longest - mark : 0;
    char kept[2];
    memcpy(kept, from - 2, 2);
    if (mark)
        memcpy(from - 2, "##", 2);
    int32_t id = -1;
    for (*length = most; *length > 0; --*length) {
        bool whole = *length == w->n - at || ((unsigned char)from[*length] & 0xc0) != 0x80;
        if (whole && (id = *find_slot(w->t, from - mark, *length + mark)) >= 0)
            break;
    }
    memcpy(from - 2, kept, 2);
    return id;
}

/* The word so far is whole: its tokens. */
static void end_word(struct words *w)
{
    int64_t first = w->count;
    bool known = w->chars <= LONGEST;
    for (size_t at = 0, length; known && at < w->n; at += length) {
        int32_t id = longest_piece(w, at, &length);
        known = id >= 0;
        if (known)
            w->id[w->count++] = id;
    }
    if (!known) {
        w->count = first;
        w->id[w->count++] = w->t->special[UNK];
    }
    w->n = 0;
    w->chars = 0;
}

static void end_if_any(struct words *w)
{
    if (w->chars > 0)
        end_word(w);
}

static void add_char(struct words *w, uint32_t c)
{
    bool alone = is_punctuation(c);
    if (alone)
        end_if_any(w);
    if (++w->chars <= LONGEST)
        w->n += (size_t)utf8proc_encode_char((utf8proc_int32_t)c,
                                             (utf8proc_uint8_t *)w->word + 2 + w->n);
    if (alone)
        end_word(w);
}

/* A character without its accents, in lower case. */
static void add_plain(struct words *w, uint32_t c)
{
    utf8proc_int32_t part[8];
    int boundary = 0;
    utf8proc_ssize_t parts =
        utf8proc_decompose_char((utf8proc_int32_t)c, part, 8, UTF8PROC_DECOMPOSE, &boundary);
    for (utf8proc_ssize_t i = 0; i < parts && i < 8; i++)
        if (utf8proc_category(part[i]) != UTF8PROC_CATEGORY_MN)
            add_char(w, (uint32_t)utf8proc_tolower(part[i]));
}

static void add(struct words *w, uint32_t c)
{
    if (is_space(c)) {
        end_if_any(w);
    } else if (!is_dirt(c)) {
        bool alone = is_chinese(c);
        if (alone)
            end_if_any(w);
        if (w->t->lower)
            add_plain(w, c);
        else
            add_char(w, c);
        if (alone)
            end_if_any(w);
    }
}

/* The special token whose name begins the n bytes at p, or SPECIALS. */
static int special_at(const attend_wordpiece *t, const char *p, size_t n)
{
    for (int i = 0; *p == '[' && i < SPECIALS; i++) {
        size_t length = strlen(special_name[i]);
        if (t->special[i] >= 0 && length <= n && memcmp(p, special_name[i], length) == 0)
            return i;
    }
    return SPECIALS;
}

int64_t attend_wordpiece_encode(const attend_wordpiece *t, const char *text, size_t n, int32_t *ids)
{
    struct words w = {.t = t, .id = ids};
    w.id[w.count++] = t->special[CLS];
    for (size_t at = 0; at < n;) {
        uint32_t c = 0;
        int special = special_at(t, text + at, n - at);
        if (special < SPECIALS) {
            end_if_any(&w);
            w.id[w.count++] = t->special[special];
            at += strlen(special_name[special]);
            continue;
        }
        int length = at_utf8_next((const unsigned char *)text + at, n - at, &c);
        if (length > 0)
            add(&w, c);
        at += length > 0 ? (size_t)length : length < 0 ? (size_t)-length : n - at;
    }
    end_if_any(&w);
    w.id[w.count++] = t->special[SEP];
    return w.count;
}

#else

int64_t attend_wordpiece_encode(const attend_wordpiece *t, const char *text, size_t n, int32_t *ids)
{
    (void)t;
    (void)text;
    (void)n;
    (void)ids;
    return 0; /* there is no t */
}

#endif
