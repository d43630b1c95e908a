/* SPDX-License-Identifier: MIT */
/* The cache of compiled programs: what was written is read, and no damage to a file, of which 200
 * are drawn, is ever given away.  SHA-256 against the examples of FIPS 180-4. */
#include "progcache.h"
#include "tap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAMAGES 200
#define BYTES 3000

static uint64_t state = 420;

static size_t draw(size_t count)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(state >> 33) % count;
}

static void check_sha256(const char *text, const char *want)
{
    struct at_sha256 s;
    uint8_t digest[32];
    char got[65];
    at_sha256_begin(&s);
    at_sha256_add(&s, text, strlen(text));
    at_sha256_end(&s, digest);
    for (int i = 0; i < 32; i++)
        snprintf(got + 2 * i, 3, "%02x", digest[i]);
    ok(!strcmp(got, want), "SHA-256 of '%.12s'", text);
}

static char path[1200];
static unsigned char whole[BYTES + 200];
static size_t size;

static void load(void)
{
    FILE *f = fopen(path, "rb");
    size = f ? fread(whole, 1, sizeof whole, f) : 0;
    if (f)
        fclose(f);
}

static void store(const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n)
        bail("cannot write %s", path);
    fclose(f);
}

/* Cuts the file, flips a bit of it, or makes it longer. */
static void damage(int round)
{
    unsigned char bad[sizeof whole + 1];
    size_t n = size;
    memcpy(bad, whole, size);
    bad[size] = 7;
    if (round % 4 == 0)
        n = draw(size);
    else if (round % 4 == 1)
        n = size + 1;
    else
        bad[draw(size)] ^= (unsigned char)(1u << draw(8));
    store(bad, n);
}

int main(void)
{
    attend_ctx *ctx;
    char folder[1024];
    uint8_t key[32], other[32];
    unsigned char data[BYTES];
    int64_t bytes;
    check_sha256("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check_sha256("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check_sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    if (attend_ctx_new(NULL, &ctx) < 0)
        bail("no context");
    if (!at_progcache_folder(folder, sizeof folder)) {
        skip("there is no folder for compiled programs");
        attend_ctx_free(ctx);
        return done_testing();
    }
    for (int i = 0; i < BYTES; i++)
        data[i] = (unsigned char)draw(256);
    for (int i = 0; i < 32; i++)
        other[i] = (key[i] = (uint8_t)(i + 1)) ^ (i == 31);
    at_progcache_write(ctx, key, data, BYTES);
    void *read = at_progcache_read(ctx, key, &bytes);
    ok(read && bytes == BYTES && !memcmp(read, data, BYTES), "what was written is read");
    at_free(ctx, read);
    ok(!at_progcache_read(ctx, other, &bytes), "nothing is read under another key");
    snprintf(path, sizeof path, "%s/", folder);
    for (int i = 0; i < 32; i++)
        snprintf(path + strlen(path), 3, "%02x", key[i]);
    strcat(path, ".bin");
    load();
    int given = 0;
    for (int round = 0; round < DAMAGES && size > 0; round++) {
        damage(round);
        read = at_progcache_read(ctx, key, &bytes);
        given += read != NULL;
        at_free(ctx, read);
    }
    ok(size > BYTES && given == 0, "none of %d damaged files is given away (%d)", DAMAGES, given);
    store(whole, size);
    read = at_progcache_read(ctx, key, &bytes);
    ok(read != NULL, "the whole file is, again");
    at_free(ctx, read);
    remove(path);
    attend_ctx_free(ctx);
    return done_testing();
}
