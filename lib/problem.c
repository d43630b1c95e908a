/* SPDX-License-Identifier: MIT */
/* Problem words, parsed and printed. */
#include "problem.h"
#include "core.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SIZE INT32_MAX /* of one extent: products of two of them do not overflow */

/* Options that are only there or not, in the order in which they are printed. */
static const struct {
    const char *name;
    size_t offset; /* of the bool in struct at_problem */
} switches[] = {
#define SWITCH(name)                                                                               \
    {                                                                                              \
#        name, offsetof(struct at_problem, name)                                                   \
    }
    SWITCH(additive),  SWITCH(alibi),         SWITCH(sinks), SWITCH(lse),  SWITCH(used),
    SWITCH(packed),    SWITCH(ring),          SWITCH(vk),    SWITCH(bshd), SWITCH(strided),
    SWITCH(unaligned), SWITCH(deterministic), SWITCH(tf32),  SWITCH(huge), SWITCH(nan),
#undef SWITCH
};

static bool *switch_of(struct at_problem *p, int i)
{
    return (bool *)((char *)p + switches[i].offset);
}

/* ---- parsing ---- */

/* A part of the word, between colons. */
struct part {
    const char *text;
    size_t length;
};

static bool is(struct part part, const char *text)
{
    return strlen(text) == part.length && strncmp(part.text, text, part.length) == 0;
}

/* Takes `text` off the front. */
static bool take(struct part *part, const char *text)
{
    size_t length = strlen(text);
    if (length > part->length || strncmp(part->text, text, length) != 0)
        return false;
    part->text += length;
    part->length -= length;
    return true;
}

static bool take_int(struct part *part, int64_t *value)
{
    int64_t n = 0;
    size_t digits = 0;
    for (; digits < part->length && isdigit((unsigned char)part->text[digits]); digits++) {
        n = 10 * n + (part->text[digits] - '0');
        if (n > MAX_SIZE)
            return false;
    }
    part->text += digits;
    part->length -= digits;
    *value = n;
    return digits > 0;
}

/* All that is left, as a finite number. */
static bool take_float(struct part *part, float *value)
{
    char text[32], *end;
    if (part->length == 0 || part->length >= sizeof text)
        return false;
    memcpy(text, part->text, part->length);
    text[part->length] = 0;
    *value = strtof(text, &end);
    part->length = 0;
    return !*end && isfinite(*value);
}

/* The types of queries come first; keys and values may have any of these. */
static const attend_type types[] = {ATTEND_F32,  ATTEND_F16,  ATTEND_BF16,
                                    ATTEND_Q8_0, ATTEND_Q4_0, ATTEND_F8};

static bool type_of(struct part part, int ntypes, attend_type *type)
{
    for (int i = 0; i < ntypes; i++)
        if (is(part, attend_type_name(types[i]))) {
            *type = types[i];
            return true;
        }
    return false;
}

static bool parse_sizes(struct part part, struct at_problem *p)
{
    bool good = take(&part, "b") && take_int(&part, &p->nb) && take(&part, "h") &&
                take_int(&part, &p->nh) && take(&part, "g") && take_int(&part, &p->ng) &&
                take(&part, "q") && take_int(&part, &p->nq) && take(&part, "k") &&
                take_int(&part, &p->nk) && take(&part, "d") && take_int(&part, &p->dk);
    p->dv = p->dk;
    if (good && take(&part, "v"))
        good = take_int(&part, &p->dv);
    return good && part.length == 0;
}

static bool take_side(struct part *part, int64_t *side)
{
    *side = -1;
    return take(part, "inf") || take_int(part, side);
}

static bool parse_mask(struct part part, struct at_problem *p)
{
    static const char axes[] = "bhqk";
    if (part.length == 0)
        return true;
    if (!take(&part, "-") || part.length != 4)
        return false;
    for (int d = 0; d < 4; d++) {
        p->mask_axis[d] = part.text[d] == axes[d];
        if (!p->mask_axis[d] && part.text[d] != '1')
            return false;
    }
    return true;
}

static bool parse_align(struct part part, struct at_problem *p)
{
    p->causal = p->causal || take(&part, "causal-");
    if (is(part, "off"))
        return p->offset = true;
    p->align = is(part, "tl") ? ATTEND_TOP_LEFT : ATTEND_BOTTOM_RIGHT;
    return is(part, "tl") || is(part, "br");
}

/* Names of masks after "mask-", by their kind. */
static const char *const masks[] = {[AT_MASK_BOOL] = "bool",
                                    [AT_MASK_FLOAT] = "float",
                                    [AT_MASK_F16] = "f16",
                                    [AT_MASK_BF16] = "bf16"};

static bool parse_mask_kind(struct part part, struct at_problem *p)
{
    for (int kind = AT_MASK_BOOL; kind <= AT_MASK_BF16; kind++)
        if (take(&part, masks[kind])) {
            p->mask = (enum at_problem_mask)kind;
            for (int d = 0; d < 4; d++)
                p->mask_axis[d] = true;
            return parse_mask(part, p);
        }
    return false;
}

/* A whole number above 0, and nothing after it. */
static bool take_count(struct part *part, int64_t *value)
{
    return take_int(part, value) && *value > 0 && part->length == 0;
}

static bool parse_option(struct part part, struct at_problem *p)
{
    for (int i = 0; i < AT_LEN(switches); i++)
        if (is(part, switches[i].name))
            return *switch_of(p, i) = true;
    if (is(part, "tl") || is(part, "br") || is(part, "off") ||
        strncmp(part.text, "causal-", 7) == 0)
        return parse_align(part, p);
    if (take(&part, "mask-"))
        return parse_mask_kind(part, p);
    if (take(&part, "layout"))
        return take_int(&part, &p->layout_rows) && p->layout_rows > 0 && take(&part, "_") &&
               take_count(&part, &p->layout_keys);
    if (take(&part, "xmask"))
        return take_count(&part, &p->xmask);
    if (take(&part, "xscore"))
        return take_count(&part, &p->xscore);
    if (take(&part, "cap"))
        return take_float(&part, &p->softcap) && p->softcap > 0;
    if (take(&part, "drop"))
        return take_float(&part, &p->dropout) && p->dropout > 0 && p->dropout < 1;
    if (take(&part, "scale"))
        return take_float(&part, &p->scale);
    if (take(&part, "kv-"))
        return type_of(part, AT_LEN(types), &p->kv_type);
    if (take(&part, "page"))
        return take_count(&part, &p->page);
    if (take(&part, "seed"))
        return take_int(&part, &p->seed) && part.length == 0;
    if (take(&part, "w"))
        return take_side(&part, &p->left) && take(&part, "_") && take_side(&part, &p->right) &&
               part.length == 0;
    return false;
}

static struct part next_part(const char **word)
{
    struct part part = {*word, strcspn(*word, ":")};
    *word += part.length;
    if (**word == ':')
        ++*word;
    return part;
}

/* What is wrong with the sizes, or NULL. */
static const char *check_sizes(const struct at_problem *p)
{
    if (p->ng < 1 || p->nh < 1 || p->nh % p->ng != 0)
        return "query heads must be a multiple of KV heads, and neither 0";
    if (p->dk < 1 || p->dk > AT_MAX_HEAD || p->dv < 1 || p->dv > AT_MAX_HEAD)
        return "head sizes must be 1 to 576";
    if (p->packed && p->bshd)
        return "packed sequences take no \"bshd\"";
    if (p->page && p->used)
        return "pages have used lengths of their own";
    if (p->ring && (!p->page || p->left < 0))
        return "a ring is of pages, under a window that leaves some";
    if (p->offset && p->align != ATTEND_ALIGN_UNSET)
        return "rows are aligned, or have offsets";
    if (p->vk && (p->dv > p->dk || p->additive))
        return "v has more channels than k, whose memory it is, or k is a projection";
    if (p->vk && attend_type_block(p->kv_type) > 1 && p->dv % 32)
        return "quantised rows of k cannot be cut there";
    return NULL;
}

int at_problem_parse(const char *word, struct at_problem *p, char *err, size_t errlen)
{
    const char *rest = word;
    *p = (struct at_problem){.left = -1, .right = -1, .scale = NAN};
    if (!is(next_part(&rest), "attention"))
        return at_say(err, errlen, ATTEND_EINVAL, "\"%s\" does not begin with \"attention:\"",
                      word);
    struct part part = next_part(&rest);
    if (!type_of(part, 3, &p->type))
        return at_say(err, errlen, ATTEND_EINVAL, "\"%s\": \"%.*s\" is not f32, f16 or bf16", word,
                      (int)part.length, part.text);
    p->kv_type = p->type;
    part = next_part(&rest);
    if (!parse_sizes(part, p))
        return at_say(err, errlen, ATTEND_EINVAL,
                      "\"%s\": \"%.*s\" are not sizes like b1h2g2q3k4d8", word, (int)part.length,
                      part.text);
    while (*rest) {
        part = next_part(&rest);
        if (!parse_option(part, p))
            return at_say(err, errlen, ATTEND_EINVAL, "\"%s\": \"%.*s\" is not an option", word,
                          (int)part.length, part.text);
    }
    const char *wrong = check_sizes(p);
    return wrong ? at_say(err, errlen, ATTEND_EINVAL, "\"%s\": %s", word, wrong) : ATTEND_OK;
}

/* ---- printing ---- */

/* Appends to the word in buf. */
__attribute__((format(printf, 2, 3))) static void add(char *buf, const char *fmt, ...)
{
    size_t length = strlen(buf);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(buf + length, AT_PROBLEM_WORD - length, fmt, ap);
    va_end(ap);
}

/* The fewest digits, from six on, that are read as the same number. */
static void add_float(char *buf, const char *name, float value)
{
    char text[32];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value)
            break;
    }
    add(buf, ":%s%s", name, text);
}

static void add_window(char *buf, int64_t left, int64_t right)
{
    const int64_t side[2] = {left, right};
    for (int i = 0; i < 2; i++) {
        add(buf, i ? "_" : ":w");
        if (side[i] < 0)
            add(buf, "inf");
        else
            add(buf, "%lld", (long long)side[i]);
    }
}

static void add_mask(char *buf, const struct at_problem *p)
{
    const bool *axis = p->mask_axis;
    add(buf, ":mask-%s", masks[p->mask]);
    if (!(axis[0] && axis[1] && axis[2] && axis[3]))
        add(buf, "-%c%c%c%c", axis[0] ? 'b' : '1', axis[1] ? 'h' : '1', axis[2] ? 'q' : '1',
            axis[3] ? 'k' : '1');
}

const char *at_problem_print(const struct at_problem *p, char buf[AT_PROBLEM_WORD])
{
    buf[0] = 0;
    add(buf, "attention:%s:b%lldh%lldg%lldq%lldk%lldd%lld", attend_type_name(p->type),
        (long long)p->nb, (long long)p->nh, (long long)p->ng, (long long)p->nq, (long long)p->nk,
        (long long)p->dk);
    if (p->dv != p->dk)
        add(buf, "v%lld", (long long)p->dv);
    if (p->align != ATTEND_ALIGN_UNSET)
        add(buf, ":%s%s", p->causal ? "causal-" : "", p->align == ATTEND_TOP_LEFT ? "tl" : "br");
    if (p->offset)
        add(buf, ":%soff", p->causal ? "causal-" : "");
    if (p->left >= 0 || p->right >= 0)
        add_window(buf, p->left, p->right);
    if (p->mask != AT_MASK_NONE)
        add_mask(buf, p);
    if (p->layout_rows)
        add(buf, ":layout%lld_%lld", (long long)p->layout_rows, (long long)p->layout_keys);
    if (p->xmask)
        add(buf, ":xmask%lld", (long long)p->xmask);
    if (p->xscore)
        add(buf, ":xscore%lld", (long long)p->xscore);
    if (p->softcap > 0)
        add_float(buf, "cap", p->softcap);
    if (!isnan(p->scale))
        add_float(buf, "scale", p->scale);
    if (p->dropout > 0)
        add_float(buf, "drop", p->dropout);
    if (p->kv_type != p->type)
        add(buf, ":kv-%s", attend_type_name(p->kv_type));
    if (p->page)
        add(buf, ":page%lld", (long long)p->page);
    struct at_problem copy = *p;
    for (int i = 0; i < AT_LEN(switches); i++)
        if (*switch_of(&copy, i))
            add(buf, ":%s", switches[i].name);
    if (p->seed)
        add(buf, ":seed%lld", (long long)p->seed);
    return buf;
}
