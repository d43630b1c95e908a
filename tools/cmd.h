/* SPDX-License-Identifier: MIT */
/* What the verbs of the program share: flags from tables, messages, a context.  A verb is a file
 * cmd_VERB.c with a table of flags and a function, and a line in attend.c. */
#ifndef CMD_H
#define CMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "attend.h"

/* Exit statuses. */
enum { CMD_DONE = 0, CMD_FAILED = 1, CMD_WRONG = 2 };

struct cmd_flag {
    const char *name;  /* "--scale", "-o" */
    const char *value; /* what follows it, as help shows it ("X"); NULL: nothing does */
    const char *help;
    const char *missing; /* NULL, or what this version cannot do: giving the flag is refused */
};

struct cmd_line;

struct cmd_verb {
    const char *name, *args, *summary;
    const struct cmd_flag *flags;         /* besides the common ones; ends with a NULL name */
    int (*run)(const struct cmd_line *l); /* returns an exit status */
    bool plans; /* "attend plan VERB ..." works: run looks at l->plan, see cmd_print_plan */
};

/* A command line, checked against the flags of its verb. */
struct cmd_line {
    const struct cmd_verb *verb;
    struct cmd_given {
        const char *name, *value; /* value is NULL where the flag takes none */
    } * given;                    /* in the order in which they were given */
    const char **arg;             /* what is not a flag */
    int ngiven, narg;
    bool plan;           /* print the plan instead of running it */
    struct trace *trace; /* of --trace, or NULL */
};

extern const struct cmd_verb *const cmd_verbs[]; /* attend.c; ends with NULL */
const struct cmd_verb *cmd_find_verb(const char *name);

/* Reads argv[0 .. argc) and runs the verb. */
int cmd_run(const struct cmd_verb *verb, int argc, char **argv, bool plan);

/* ---- what was given ---- */

bool cmd_has(const struct cmd_line *l, const char *flag);
/* The value of a flag, the last one where it was given more than once; NULL: not given. */
const char *cmd_value(const struct cmd_line *l, const char *flag);
/* The values of a flag that may be repeated, one a call; *at begins as 0; NULL: no more. */
const char *cmd_next(const struct cmd_line *l, const char *flag, int *at);
/* Numbers, all of the text and nothing else, in [min, max].  *out keeps its value where the flag is
 * not given.  False, and a message is printed, where the text is wrong: return CMD_WRONG. */
bool cmd_int(const struct cmd_line *l, const char *flag, int64_t min, int64_t max, int64_t *out);
bool cmd_ints(const struct cmd_line *l, const char *flag, int64_t min, int64_t max, int64_t out[2]);
bool cmd_float(const struct cmd_line *l, const char *flag, float min, float max, float *out);
/* Which of the words (NULL at the end) the value is; *out keeps its value where it is not given. */
bool cmd_choice(const struct cmd_line *l, const char *flag, const char *const *words, int *out);

/* ---- messages, one line on stderr ---- */

/* "attend VERB: FILE: ..."; file may be NULL.  Returns CMD_FAILED. */
int cmd_fail(const struct cmd_line *l, const char *file, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The command line is wrong.  Returns CMD_WRONG. */
int cmd_wrong(const struct cmd_line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Text as a JSON string, on stdout. */
void cmd_print_json(const char *text);
void cmd_print_json_bytes(const char *text, size_t n); /* which may hold zeros */

/* ---- the library ---- */

/* A context as --threads says. */
int cmd_context(const struct cmd_line *l, attend_ctx **ctx);
/* What --precision says, else what is there. */
int cmd_precision(const struct cmd_line *l, attend_precision *precision);
/* Compiles for --device and --precision; _as: with these options beside them. */
int cmd_compile_as(const struct cmd_line *l, attend_graph *g, attend_compile_opts *opts,
                   attend_plan **plan);
int cmd_compile(const struct cmd_line *l, attend_graph *g, attend_plan **plan);
/* The plan on stdout, as --json and --dot say. */
int cmd_print_plan(const struct cmd_line *l, const attend_plan *plan);
/* Element i of a file of integers, i8 to i64; uint16 is read as bf16, of which only the bits count.
 */
int64_t cmd_integer_at(const attend_array *a, int64_t i);

#endif
