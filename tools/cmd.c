/* SPDX-License-Identifier: MIT */
/* Command lines against tables of flags; messages; the context that every verb opens. */
#include "cmd.h"
#include "page.h"
#include "trace.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cmd_flag common[] = {
    {"--device",  "NAME", "where to run, as \"attend devices\" lists it, or auto (auto)", NULL},
    {"--threads", "N",    "how many threads (the processors there are)",                  NULL},
    {"--trace",   "FILE", "what ran when, for ui.perfetto.dev",                           NULL},
    {"--json",    NULL,   "results for programs: an object, or one a line",               NULL},
    {"--quiet",   NULL,   "no progress on stderr",                                        NULL},
    {"--help",    NULL,   "this",                                                         NULL},
    {NULL,        NULL,   NULL,                                                           NULL},
};

/* Only where a plan is asked for. */
static const struct cmd_flag plan_flags[] = {
    {"--dot",  NULL, "the plan as a graph for Graphviz", NULL},
    {"--html", NULL, "the plan as a page",               NULL},
    {NULL,     NULL, NULL,                               NULL},
};

/* ---- messages ---- */

static void complain(const struct cmd_line *l, const char *file, const char *fmt, va_list ap)
{
    fflush(stdout);
    fprintf(stderr, "attend %s: ", l->verb->name);
    if (file)
        fprintf(stderr, "%s: ", file);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

int cmd_fail(const struct cmd_line *l, const char *file, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    complain(l, file, fmt, ap);
    va_end(ap);
    return CMD_FAILED;
}

int cmd_wrong(const struct cmd_line *l, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    complain(l, NULL, fmt, ap);
    va_end(ap);
    return CMD_WRONG;
}

void cmd_print_json_bytes(const char *text, size_t n)
{
    putchar('"');
    for (size_t i = 0; i < n; i++)
        if (text[i] == '"' || text[i] == '\\')
            printf("\\%c", text[i]);
        else if ((unsigned char)text[i] < 0x20)
            printf("\\u%04x", (unsigned)text[i]);
        else
            putchar(text[i]);
    putchar('"');
}

void cmd_print_json(const char *text)
{
    cmd_print_json_bytes(text, strlen(text));
}

static void print_flags(const struct cmd_flag *flags)
{
    for (const struct cmd_flag *f = flags; f->name; f++) {
        char left[64];
        snprintf(left, sizeof left, "%s %s", f->name, f->value ? f->value : "");
        printf("  %-24s%s", left, strlen(left) > 24 ? "\n                          " : "");
        printf("  %s%s\n", f->help, f->missing ? " (not in this version)" : "");
    }
}

static void print_help(const struct cmd_line *l)
{
    const struct cmd_verb *v = l->verb;
    printf("usage: attend %s%s %s\n\n%s\n\n", l->plan ? "plan " : "", v->name, v->args, v->summary);
    print_flags(v->flags);
    if (l->plan)
        print_flags(plan_flags);
    print_flags(common);
}

/* ---- the closest name, for a suggestion ---- */

/* How many letters to insert, remove or replace; names are short. */
static int distance(const char *a, const char *b)
{
    int row[64], nb = (int)strlen(b);
    if (nb >= 64)
        return 64;
    for (int j = 0; j <= nb; j++)
        row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= nb; j++) {
            int replace = diagonal + (a[i - 1] != b[j - 1]);
            int other = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);
            diagonal = row[j];
            row[j] = replace < other ? replace : other;
        }
    }
    return row[nb];
}

struct closest {
    const char *name;
    int distance;
};

static void consider(struct closest *c, const char *text, const char *name)
{
    int d = distance(text, name);
    if (d < c->distance)
        *c = (struct closest){name, d};
}

static struct closest no_closest(const char *text)
{
    return (struct closest){NULL, 1 + (int)strlen(text) / 3};
}

/* ---- parsing ---- */

static const struct cmd_flag *in_table(const struct cmd_flag *flags, const char *name)
{
    for (; flags->name; flags++)
        if (strcmp(flags->name, name) == 0)
            return flags;
    return NULL;
}

static const struct cmd_flag *find_flag(const struct cmd_line *l, const char *name)
{
    const struct cmd_flag *f = in_table(l->verb->flags, name);
    if (!f)
        f = in_table(common, name);
    if (!f && l->plan)
        f = in_table(plan_flags, name);
    return f;
}

static int unknown_flag(const struct cmd_line *l, const char *name)
{
    struct closest c = no_closest(name);
    for (const struct cmd_flag *f = l->verb->flags; f->name; f++)
        consider(&c, name, f->name);
    for (const struct cmd_flag *f = common; f->name; f++)
        consider(&c, name, f->name);
    if (c.name)
        return cmd_wrong(l, "there is no flag %s; did you mean %s?", name, c.name);
    return cmd_wrong(l, "there is no flag %s; attend %s --help lists them", name, l->verb->name);
}

/* One flag at argv[*i], as "--flag value", "--flag=value" or "--flag". */
static int take_flag(struct cmd_line *l, int argc, char **argv, int *i)
{
    char *equals = strncmp(argv[*i], "--", 2) == 0 ? strchr(argv[*i], '=') : NULL;
    if (equals)
        *equals = 0;
    const struct cmd_flag *f = find_flag(l, argv[*i]);
    if (!f)
        return unknown_flag(l, argv[*i]);
    const char *value = equals ? equals + 1 : NULL;
    if (!f->value && value)
        return cmd_wrong(l, "%s takes no value", f->name);
    if (f->value && !value) {
        if (*i + 1 == argc)
            return cmd_wrong(l, "%s wants %s after it", f->name, f->value);
        value = argv[++*i];
    }
    l->given[l->ngiven++] = (struct cmd_given){f->name, value};
    return CMD_DONE;
}

static int parse(struct cmd_line *l, int argc, char **argv)
{
    bool flags = true;
    for (int i = 0; i < argc; i++) {
        if (flags && strcmp(argv[i], "--") == 0) {
            flags = false;
        } else if (flags && argv[i][0] == '-' && argv[i][1]) {
            int status = take_flag(l, argc, argv, &i);
            if (status != CMD_DONE)
                return status;
        } else {
            l->arg[l->narg++] = argv[i];
        }
    }
    return CMD_DONE;
}

static int refuse_missing(const struct cmd_line *l)
{
    for (int i = 0; i < l->ngiven; i++) {
        const struct cmd_flag *f = find_flag(l, l->given[i].name);
        if (f->missing)
            return cmd_fail(l, NULL, "%s: this version cannot %s", f->name, f->missing);
    }
    return CMD_DONE;
}

static int run_parsed(const struct cmd_line *l)
{
    int64_t threads;
    if (cmd_has(l, "--help")) {
        print_help(l);
        return CMD_DONE;
    }
    if (!cmd_int(l, "--threads", 1, 1024, &threads))
        return CMD_WRONG;
    int status = refuse_missing(l);
    return status == CMD_DONE ? l->verb->run(l) : status;
}

/* A failed run leaves no file. */
static int run_traced(struct cmd_line *l)
{
    char err[400];
    const char *path = cmd_value(l, "--trace");
    if (path && trace_open(&l->trace, path, err, sizeof err) < 0)
        return cmd_fail(l, NULL, "%s", err);
    int status = run_parsed(l);
    if (l->trace && status != CMD_DONE)
        trace_discard(l->trace);
    else if (l->trace && trace_close(l->trace, err, sizeof err) < 0)
        status = cmd_fail(l, NULL, "%s", err);
    return status;
}

int cmd_run(const struct cmd_verb *verb, int argc, char **argv, bool plan)
{
    struct cmd_line l = {.verb = verb, .plan = plan};
    l.given = calloc((size_t)argc + 1, sizeof *l.given);
    l.arg = calloc((size_t)argc + 1, sizeof *l.arg);
    int status = CMD_FAILED;
    if (!l.given || !l.arg)
        cmd_fail(&l, NULL, "no memory for the command line");
    else if ((status = parse(&l, argc, argv)) == CMD_DONE)
        status = run_traced(&l);
    free(l.given);
    free(l.arg);
    return status;
}

const struct cmd_verb *cmd_find_verb(const char *name)
{
    struct closest c = no_closest(name);
    for (const struct cmd_verb *const *v = cmd_verbs; *v; v++) {
        if (strcmp((*v)->name, name) == 0)
            return *v;
        consider(&c, name, (*v)->name);
    }
    if (c.name)
        fprintf(stderr, "attend: there is no verb %s; did you mean %s?\n", name, c.name);
    else
        fprintf(stderr, "attend: there is no verb %s; attend --help lists them\n", name);
    return NULL;
}

/* ---- what was given ---- */

const char *cmd_next(const struct cmd_line *l, const char *flag, int *at)
{
    assert(find_flag(l, flag));
    while (*at < l->ngiven) {
        const struct cmd_given *g = &l->given[(*at)++];
        if (strcmp(g->name, flag) == 0)
            return g->value ? g->value : "";
    }
    return NULL;
}

const char *cmd_value(const struct cmd_line *l, const char *flag)
{
    const char *last = NULL, *next;
    for (int at = 0; (next = cmd_next(l, flag, &at));)
        last = next;
    return last;
}

bool cmd_has(const struct cmd_line *l, const char *flag)
{
    return cmd_value(l, flag) != NULL;
}

/* A whole number at the front of *text, which is moved past it. */
static bool take_int(const char **text, int64_t min, int64_t max, int64_t *out)
{
    char *end;
    if (!isdigit((unsigned char)**text) && **text != '-')
        return false;
    long long n = strtoll(*text, &end, 10); /* out of range: an end of the range of long long */
    if (end == *text || n < min || n > max || n == INT64_MAX)
        return false;
    *text = end;
    *out = n;
    return true;
}

static bool wrong_int(const struct cmd_line *l, const char *flag, const char *what, int64_t min,
                      int64_t max)
{
    cmd_wrong(l, "%s: \"%s\" is not %s from %lld to %lld", flag, cmd_value(l, flag), what,
              (long long)min, (long long)max);
    return false;
}

bool cmd_int(const struct cmd_line *l, const char *flag, int64_t min, int64_t max, int64_t *out)
{
    const char *text = cmd_value(l, flag);
    int64_t n;
    if (!text)
        return true;
    if (!take_int(&text, min, max, &n) || *text)
        return wrong_int(l, flag, "a number", min, max);
    *out = n;
    return true;
}

bool cmd_ints(const struct cmd_line *l, const char *flag, int64_t min, int64_t max, int64_t out[2])
{
    const char *text = cmd_value(l, flag);
    int64_t n[2];
    if (!text)
        return true;
    if (!take_int(&text, min, max, &n[0]) || *text++ != ',' || !take_int(&text, min, max, &n[1]) ||
        *text)
        return wrong_int(l, flag, "two numbers with a comma between them", min, max);
    memcpy(out, n, sizeof n);
    return true;
}

bool cmd_float(const struct cmd_line *l, const char *flag, float min, float max, float *out)
{
    const char *text = cmd_value(l, flag);
    char *end;
    if (!text)
        return true;
    float x = strtof(text, &end);
    if (end == text || *end || isspace((unsigned char)*text) || !isfinite(x) || x < min ||
        x > max) {
        cmd_wrong(l, "%s: \"%s\" is not a finite number from %g to %g", flag, text, (double)min,
                  (double)max);
        return false;
    }
    *out = x;
    return true;
}

bool cmd_choice(const struct cmd_line *l, const char *flag, const char *const *words, int *out)
{
    const char *text = cmd_value(l, flag);
    char all[160] = "";
    if (!text)
        return true;
    for (int i = 0; words[i]; i++) {
        if (strcmp(words[i], text) == 0) {
            *out = i;
            return true;
        }
        size_t length = strlen(all);
        snprintf(all + length, sizeof all - length, "%s%s", i ? ", " : "", words[i]);
    }
    cmd_wrong(l, "%s: \"%s\" is not one of %s", flag, text, all);
    return false;
}

/* ---- the library ---- */

static void print_log(void *arg, const char *line)
{
    fprintf(stderr, "%s: %s\n", (const char *)arg, line);
}

int cmd_context(const struct cmd_line *l, attend_ctx **ctx)
{
    static char name[] = "attend";
    int64_t threads = 0;
    attend_ctx_opts opts;
    attend_ctx_opts_init(&opts);
    cmd_int(l, "--threads", 1, 1024, &threads);
    opts.threads = (int)threads;
    if (!cmd_has(l, "--quiet")) {
        opts.log = print_log;
        opts.log_arg = name;
    }
    if (l->trace) {
        opts.trace = trace_span;
        opts.trace_arg = l->trace;
    }
    int status = attend_ctx_new(&opts, ctx);
    if (status < 0)
        return cmd_fail(l, NULL, "cannot start with %d threads: %s", opts.threads,
                        attend_status_name(status));
    return CMD_DONE;
}

int cmd_precision(const struct cmd_line *l, attend_precision *precision)
{
    static const char *const words[] = {"exact", "tf32", "int8", "f16_p", NULL};
    int which = *precision;
    if (!cmd_choice(l, "--precision", words, &which))
        return CMD_WRONG;
    *precision = (attend_precision)which;
    return CMD_DONE;
}

int cmd_compile_as(const struct cmd_line *l, attend_graph *g, attend_compile_opts *opts,
                   attend_plan **plan)
{
    if (cmd_has(l, "--device"))
        opts->device = cmd_value(l, "--device");
    if (cmd_precision(l, &opts->precision) != CMD_DONE)
        return CMD_WRONG;
    if (attend_compile(g, opts, plan) < 0)
        return cmd_fail(l, NULL, "%s", attend_graph_error(g));
    return CMD_DONE;
}

int cmd_compile(const struct cmd_line *l, attend_graph *g, attend_plan **plan)
{
    attend_compile_opts opts;
    attend_compile_opts_init(&opts);
    return cmd_compile_as(l, g, &opts, plan);
}

/* In JSON "<" is in strings alone; there "</script>" would end the script. */
static void print_page(const char *page, const char *place, const char *json)
{
    fwrite(page, 1, (size_t)(place - page), stdout);
    for (; *json; json++)
        if (*json == '<')
            fputs("\\u003c", stdout);
        else
            putchar(*json);
    fputs(place + strlen(PAGE_MARK), stdout);
}

int cmd_print_plan(const struct cmd_line *l, const attend_plan *plan)
{
    const char *page = page_text[PAGE_PLAN], *place = strstr(page, PAGE_MARK);
    bool html = cmd_has(l, "--html");
    attend_format format = cmd_has(l, "--dot")            ? ATTEND_DOT
                           : html || cmd_has(l, "--json") ? ATTEND_JSON
                                                          : ATTEND_TEXT;
    char *text = attend_plan_describe(plan, format);
    if (!text)
        return cmd_fail(l, NULL, "no memory for the text of the plan");
    if (html)
        print_page(page, place, text);
    else
        fputs(text, stdout);
    attend_free(text);
    return CMD_DONE;
}

int64_t cmd_integer_at(const attend_array *a, int64_t i)
{
    switch (a->type) {
    case ATTEND_I8:
        return ((const int8_t *)a->data)[i];
    case ATTEND_U8:
        return ((const uint8_t *)a->data)[i];
    case ATTEND_I32:
        return ((const int32_t *)a->data)[i];
    case ATTEND_BF16:
        return ((const uint16_t *)a->data)[i];
    default:
        return ((const int64_t *)a->data)[i];
    }
}
