/* SPDX-License-Identifier: Apache-2.0 */
/* Allocations of src/base that fail (D-9): the n-th one of a run, until the run succeeds. Base has
 * two ways to memory: env->alloc for bitfields, OpenSSL's for hashers. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <openssl/crypto.h>
#include <stdlib.h>

#include "digest.h"
#include "piece_map.h"

static int blocks;      /* live */
static int calls;       /* allocations so far */
static int failing = 0; /* the one to refuse; 0 none */

static void *take_block(size_t bytes)
{
    if (++calls == failing)
        return NULL;
    void *block = malloc(bytes);
    blocks += block != NULL;
    return block;
}

static void drop_block(void *block)
{
    blocks -= block != NULL;
    free(block);
}

static void *openssl_malloc(size_t bytes, const char *file, int line)
{
    (void)file;
    (void)line;
    return take_block(bytes);
}

static void *openssl_realloc(void *old, size_t bytes, const char *file, int line)
{
    (void)file;
    (void)line;
    assert_true(bytes > 0);
    blocks += old == NULL;
    return realloc(old, bytes);
}

static void openssl_free(void *block, const char *file, int line)
{
    (void)file;
    (void)line;
    drop_block(block);
}

static void *env_alloc(void *host, void *old, size_t new_bytes)
{
    (void)host;
    if (new_bytes > 0) {
        assert_null(old);
        return take_block(new_bytes);
    }
    drop_block(old);
    return NULL;
}

/* Two hashers and two bitfields, used and released. 0, or the first error. */
static int run(void)
{
    static const struct env env = {.alloc = env_alloc};
    struct hasher *first = NULL, *second = NULL;
    struct bitfield field = {.bits = NULL}, other = {.bits = NULL};
    struct digest digest;
    int err = hasher_new(DIGEST_SHA256, &first);
    if (err == 0)
        err = bitfield_init(&field, &env, 100);
    if (err == 0)
        err = hasher_new(DIGEST_SHA512, &second);
    if (err == 0)
        err = bitfield_init(&other, &env, 1);
    if (err == 0) {
        hasher_update(second, "abc", 3);
        hasher_final(second, &digest);
        assert_true(bitfield_set(&other, 0));
    }
    bitfield_close(&other, &env);
    bitfield_close(&field, &env);
    hasher_free(second);
    hasher_free(first);
    return err;
}

static void test_each_allocation_may_fail_d9(void **state)
{
    (void)state;
    int err = E_NO_MEMORY;
    int before = blocks;
    for (failing = 1; err != 0; failing++) {
        calls = 0;
        err = run();
        assert_int_equal(err, failing <= 4 ? E_NO_MEMORY : 0);
        assert_int_equal(blocks, before); /* no leak */
    }
    assert_int_equal(failing, 6); /* four allocations, each failed once */
}

/* One-shot hashes work when there is no memory at all. */
static void test_hashing_needs_no_memory_d9(void **state)
{
    (void)state;
    uint8_t key[32] = {1}, out[32];
    struct digest digest;
    struct blob_key blob;
    failing = 0;
    calls = 0;
    sha256_of("abc", 3, out);
    hmac_sha256(key, "a", 1, "b", 1, out);
    digest_of(DIGEST_SHA512, "abc", 3, &digest);
    blob_key_of(key, &digest, &blob);
    segment_key_of(&blob, 1, out);
    assert_int_equal(calls, 0);
}

int main(void)
{
    /* Must come before anything else of OpenSSL. */
    if (CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free) != 1)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_allocation_may_fail_d9),
        cmocka_unit_test(test_hashing_needs_no_memory_d9),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
