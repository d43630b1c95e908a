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

bool at_place_knows(const struct at_device *device, enum at_opcode op)
{
    for (const struct at_row *const *r = device->backend->rows; *r; r++)
        if ((*r)->op == op || (*r)->op == AT_ANY_OP)
            return true;
    return false;
}

static int prepare(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    s->scratch = s->state = s->work = s->shared_work = 0;
    s->packed = NULL;
    return s->row->prepare ? s->row->prepare(plan, s, e) : 0;
}

/* Prepares the first row of a device that can; refusals are appended to `refused`.  No row is left
 * where none can. */
static int first_row(attend_plan *plan, struct at_step *s, const struct at_device *device,
                     struct at_str *refused, struct at_err *e)
{
    s->device = device;
    for (const struct at_row *const *r = device->backend->rows; *r; r++) {
        struct at_why why = {""};
        if ((*r)->op != s->op && (*r)->op != AT_ANY_OP)
            continue;
        s->row = *r;
        bool can = (*r)->accepts(plan, s, &why);
        int status = can ? prepare(plan, s, e) : 0;
        if (!can && !why.text[0])
            continue;
        if (can && status != ATTEND_EUNSUPPORTED)
            return status;
        at_str_add(refused, "%s%s: %s", refused->len ? "; " : "", (*r)->name,
                   can ? e->text : why.text);
        if (can)
            at_err_clear(e);
    }
    s->row = NULL;
    return 0;
}

int at_place(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    const struct at_device *reference = &plan->ctx->device[0];
    struct at_str refused = {0};
    int status = first_row(plan, s, plan->device, &refused, e);
    if (status == 0 && !s->row && plan->device != reference)
        status = first_row(plan, s, reference, &refused, e);
    if (refused.len)
        s->why = at_strdup(plan->ctx, refused.text);
    bool lost = refused.failed || (refused.len && !s->why);
    attend_free(refused.text);
    if (status < 0)
        return status;
    if (lost)
        return at_fail(e, ATTEND_ENOMEM, "no memory for a plan");
    if (!s->row)
        return at_fail(e, ATTEND_EUNSUPPORTED, "nothing here can run %s", at_ops[s->op].name);
    return 0;
}
