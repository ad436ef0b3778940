/* SPDX-License-Identifier: Apache-2.0 */
/* Who is banned after a mismatch: proven liars only (INT-7), nobody for a registry's lie. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/daemon/blob_blame.h"

static struct node_id node_no(uint8_t number)
{
    return (struct node_id){.bytes = {number}};
}

static void note(struct blob_blame *blame, uint8_t number)
{
    struct node_id id = node_no(number);
    blob_blame_note(blame, &id, false);
}

static void a_matching_digest_proves_the_lie(void **state)
{
    (void)state;
    struct blob_blame blame = {0};
    struct node_id liars[BLOB_SUSPECTS_MAX];
    note(&blame, 1);
    note(&blame, 2);
    note(&blame, 1); /* a second false piece of the same node */
    assert_int_equal(blob_blame_settle(&blame, true, liars), 2);
    assert_int_equal(liars[0].bytes[0], 1);
    assert_int_equal(liars[1].bytes[0], 2);
    assert_int_equal(blob_blame_settle(&blame, true, liars), 0); /* once only */
}

/* The registry's own bytes do not match: the vouchers may have been for the right ones. */
static void a_lying_registry_proves_nothing(void **state)
{
    (void)state;
    struct blob_blame blame = {0};
    struct node_id liars[BLOB_SUSPECTS_MAX];
    note(&blame, 1);
    assert_int_equal(blob_blame_settle(&blame, false, liars), 0);
    /* Later it is honest: what others signed may be what it gave them before. */
    note(&blame, 1);
    assert_int_equal(blob_blame_settle(&blame, true, liars), 0);
}

static void our_own_false_voucher_is_the_registrys_lie(void **state)
{
    (void)state;
    struct blob_blame blame = {0};
    struct node_id liars[BLOB_SUSPECTS_MAX], self = node_no(9);
    note(&blame, 1);
    blob_blame_note(&blame, &self, true);
    note(&blame, 2);
    assert_int_equal(blob_blame_settle(&blame, true, liars), 0);
}

static void a_broken_off_reading_proves_nothing(void **state)
{
    (void)state;
    struct blob_blame blame = {0};
    struct node_id liars[BLOB_SUSPECTS_MAX];
    note(&blame, 1);
    blob_blame_clear(&blame);
    note(&blame, 2);
    assert_int_equal(blob_blame_settle(&blame, true, liars), 1);
    assert_int_equal(liars[0].bytes[0], 2);
}

static void suspects_are_bounded(void **state)
{
    (void)state;
    struct blob_blame blame = {0};
    struct node_id liars[BLOB_SUSPECTS_MAX];
    for (uint8_t i = 1; i <= 2 * BLOB_SUSPECTS_MAX; i++)
        note(&blame, i);
    assert_int_equal(blob_blame_settle(&blame, true, liars), BLOB_SUSPECTS_MAX);
    assert_int_equal(liars[0].bytes[0], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_matching_digest_proves_the_lie),
        cmocka_unit_test(a_lying_registry_proves_nothing),
        cmocka_unit_test(our_own_false_voucher_is_the_registrys_lie),
        cmocka_unit_test(a_broken_off_reading_proves_nothing),
        cmocka_unit_test(suspects_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
