/* SPDX-License-Identifier: MIT */
/* The programs of a device and their kernels, each made once. */
#include "programs.h"

#include <string.h>

#include "sha256.h"

void at_program_key(const char *const *part, int n, uint8_t key[32])
{
    struct at_sha256 s;
    at_sha256_begin(&s);
    for (int i = 0; i < n; i++)
        at_sha256_add(&s, part[i], strlen(part[i]) + 1);
    at_sha256_end(&s, key);
}

static int program_of(attend_ctx *ctx, struct at_program **list,
                      const struct at_program_maker *maker, void *device, const uint8_t key[32],
                      const char *text, const char *options, struct at_program **out,
                      struct at_err *e)
{
    for (struct at_program *p = *list; p; p = p->next)
        if (!memcmp(p->key, key, sizeof p->key)) {
            *out = p;
            return 0;
        }
    struct at_program *p = at_calloc(ctx, 1, sizeof *p);
    if (!p)
        return at_fail(e, ATTEND_ENOMEM, "no memory for a program");
    memcpy(p->key, key, sizeof p->key);
    int status = maker->make(device, p, text, options, e);
    if (status < 0) {
        at_free(ctx, p);
        return status;
    }
    p->next = *list;
    *list = *out = p;
    return 0;
}

int at_program_kernel(attend_ctx *ctx, struct at_program **list,
                      const struct at_program_maker *maker, void *device, const uint8_t key[32],
                      const char *text, const char *options, const char *name, void **kernel,
                      struct at_err *e)
{
    struct at_program *p = NULL;
    int status = program_of(ctx, list, maker, device, key, text, options, &p, e);
    if (status < 0)
        return status;
    for (int i = 0; i < p->nkernel; i++)
        if (!strcmp(p->kernel[i].name, name)) {
            *kernel = &p->kernel[i];
            return 0;
        }
    if (p->nkernel == AT_PROGRAM_KERNELS || strlen(name) >= sizeof p->kernel->name)
        return at_fail(e, ATTEND_ELIMIT, "a program has more than %d kernels", AT_PROGRAM_KERNELS);
    struct at_kernel *k = &p->kernel[p->nkernel];
    *k = (struct at_kernel){.items = 0};
    memcpy(k->program, key, sizeof k->program);
    strcpy(k->name, name);
    status = maker->find(device, p, k, e);
    if (status < 0)
        return status;
    p->nkernel++;
    *kernel = k;
    return 0;
}
