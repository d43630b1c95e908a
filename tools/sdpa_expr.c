/* SPDX-License-Identifier: MIT */
/* --score, --mask-expr and the tensors of --let. */
#include "sdpa.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Expressions compute in f32. */
static int narrow(struct sdpa *s, struct sdpa_let *let, const char *file)
{
    int64_t n = let->a.bytes / (int64_t)sizeof(double);
    float *f = malloc((size_t)n * sizeof *f + 1);
    if (!f || attend_convert(ATTEND_F32, f, ATTEND_F64, let->a.data, n) < 0) {
        free(f);
        return cmd_fail(s->l, file, "no memory for %lld numbers", (long long)n);
    }
    attend_free(let->a.data);
    let->a.type = ATTEND_F32;
    let->a.data = f;
    let->a.bytes = n * (int64_t)sizeof *f;
    return CMD_DONE;
}

static int read_let(struct sdpa *s, const char *value)
{
    char err[320];
    const char *equals = strchr(value, '=');
    struct sdpa_let *let = &s->let[s->nlet];
    if (!equals || equals == value)
        return cmd_wrong(s->l, "--let: \"%s\" is not NAME=FILE.npy", value);
    if (s->nlet == SDPA_LETS)
        return cmd_wrong(s->l, "--let: there are more than %d", SDPA_LETS);
    if (equals - value >= (ptrdiff_t)sizeof let->name)
        return cmd_wrong(s->l, "--let: the name in \"%s\" is longer than %zu bytes", value,
                         sizeof let->name - 1);
    memcpy(let->name, value, (size_t)(equals - value));
    snprintf(let->input, sizeof let->input, "let %.*s", (int)(equals - value), value);
    if (attend_npy_read(equals + 1, &let->a, err, sizeof err) < 0)
        return cmd_fail(s->l, NULL, "%s", err);
    s->nlet++;
    return let->a.type == ATTEND_F64 ? narrow(s, let, equals + 1) : CMD_DONE;
}

int sdpa_read_lets(struct sdpa *s)
{
    const char *value;
    int at = 0, status = CMD_DONE;
    s->opts.score = cmd_value(s->l, "--score");
    s->opts.mask_expr = cmd_value(s->l, "--mask-expr");
    while (status == CMD_DONE && (value = cmd_next(s->l, "--let", &at)))
        status = read_let(s, value);
    return status;
}

/* The library shows an expression that it refuses on a line of its own, with a caret below; the
 * program says all on one line, with the caret before the place. */
int sdpa_check_exprs(const struct sdpa *s, const attend_graph *g)
{
    const char *error = attend_graph_error(g), *text = strchr(error, '\n');
    const char *below = text ? strchr(text + 1, '\n') : NULL,
               *caret = below ? strchr(below, '^') : NULL;
    if (attend_graph_status(g) == 0 || !caret)
        return CMD_DONE; /* whatever else is wrong, compiling says */
    text += 5;
    ptrdiff_t place = caret - below - 5;
    return cmd_fail(s->l, NULL, "%.*s: %.*s^%.*s", (int)(text - 5 - error), error, (int)place, text,
                    (int)(below - text - place), text + place);
}

void sdpa_build_lets(attend_graph *g, const struct sdpa *s, attend_capture *capture)
{
    for (int k = 0; k < s->nlet; k++) {
        const struct sdpa_let *let = &s->let[k];
        capture[k] = (attend_capture){let->name,
                                      attend_graph_input(g, let->input, let->a.type, let->a.shape)};
    }
}
