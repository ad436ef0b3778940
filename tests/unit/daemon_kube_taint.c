/* SPDX-License-Identifier: Apache-2.0 */
/* Start-up taints: keys, and the patch that takes one off. The requests: integration
 * runtime_config. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "../../src/daemon/kube_taint.h"

static void keys(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "shoal.example.com/starting",
                                       "node.kubernetes.io/not-ready", "A_b-c.9", "x/y"};
    static const char *const bad[] = {"",    "/",   "a/",  "/a",  "a/b/c", "-a",  "a-",
                                      "a b", "a=b", "a:b", "a~b", "a/-b",  "-/b", "a_b/c"};
    char name[65], prefix[260];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(kube_taint_key_valid(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(kube_taint_key_valid(bad[i]));
    memset(name, 'n', sizeof name);
    name[64] = '\0';
    assert_false(kube_taint_key_valid(name));
    name[63] = '\0';
    assert_true(kube_taint_key_valid(name));
    memset(prefix, 'p', sizeof prefix);
    (void)snprintf(prefix + 254, 3, "/n");
    assert_false(kube_taint_key_valid(prefix));
    (void)snprintf(prefix + 253, 3, "/n");
    assert_true(kube_taint_key_valid(prefix));
}

static int patch(const char *node, char **out)
{
    return kube_taint_patch(node, strlen(node), "k/starting", out);
}

static void patches(void **state)
{
    (void)state;
    char *text = NULL;
    assert_int_equal(patch("{\"spec\":{\"taints\":[{\"key\":\"other\",\"effect\":\"NoExecute\"},"
                           "{\"key\":\"k/starting\",\"effect\":\"NoSchedule\"}]}}",
                           &text),
                     0);
    assert_string_equal(text, "[{\"op\":\"test\",\"path\":\"/spec/taints/1/key\",\"value\":"
                              "\"k/starting\"},{\"op\":\"remove\",\"path\":\"/spec/taints/1\"}]");
    free(text);
    static const char *const none[] = {
        "{}",
        "{\"spec\":{}}",
        "{\"spec\":{\"taints\":[]}}",
        "{\"spec\":{\"taints\":null}}",
        "{\"spec\":{\"taints\":{\"key\":\"k/starting\"}}}",
        "{\"spec\":[{\"key\":\"k/starting\"}]}",
        "{\"spec\":{\"taints\":[1,null,{},{\"key\":7},{\"key\":\"k/startin\"},\"k/starting\"]}}"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        assert_int_equal(patch(none[i], &text), E_NOT_FOUND);
    static const char *const bad[] = {
        "", "[]", "null", "<html>", "{\"spec\":", "{} {}", "{\"spec\":{},\"spec\":{}}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(patch(bad[i], &text), E_MALFORMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys),
        cmocka_unit_test(patches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
