/* SPDX-License-Identifier: MIT */
/* Choosing a kernel row for a step: the first that accepts, the reference last. */
#include <string.h>

#include "backends/backend.h"

bool at_need(struct at_why *why, bool cond, const char *reason)
{
    if (!cond && !why->text[0])
        strncat(why->text, reason, sizeof why->text - 1);
    return cond;
}

/* Tries the rows of a device; refusals are appended to `refused`. */
static const struct at_row *first_row(const attend_plan *plan, const struct at_step *s,
                                      const struct at_device *device, struct at_str *refused)
{
    for (const struct at_row *const *r = device->backend->rows; *r; r++) {
        struct at_why why = {""};
        if ((*r)->op != s->op && (*r)->op != AT_ANY_OP)
            continue;
        if ((*r)->accepts(plan, s, &why))
            return *r;
        at_str_add(refused, "%s%s: %s", refused->len ? "; " : "", (*r)->name, why.text);
    }
    return NULL;
}

int at_place(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    const struct at_device *reference = &plan->ctx->device[0];
    struct at_str refused = {0};
    s->device = plan->device;
    s->row = first_row(plan, s, s->device, &refused);
    if (!s->row && s->device != reference) {
        s->device = reference;
        s->row = first_row(plan, s, s->device, &refused);
    }
    if (refused.len)
        s->why = at_strdup(plan->ctx, refused.text);
    bool lost = refused.failed || (refused.len && !s->why);
    attend_free(refused.text);
    if (lost)
        return at_fail(e, ATTEND_ENOMEM, "no memory for a plan");
    if (!s->row)
        return at_fail(e, ATTEND_EUNSUPPORTED, "nothing here can run %s", at_ops[s->op].name);
    return s->row->prepare ? s->row->prepare(plan, s, e) : 0;
}
