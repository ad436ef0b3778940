/* SPDX-License-Identifier: Apache-2.0 */
/* WWW-Authenticate challenges, and which token realm may see credentials (ORG-4). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include <stdio.h>

#include "registry.h"

static int parse(const char *text, struct auth_challenge *out)
{
    return auth_challenge_parse(text, strlen(text), out);
}

static void acr_challenge(void **state)
{
    struct auth_challenge challenge;

    (void)state;
    assert_int_equal(
        parse("Bearer realm=\"https://dockerauth-ee-vpc.cn-hangzhou.aliyuncs.com/auth\","
              "service=\"registry.aliyuncs.com:cn-hangzhou:china:cri-abc123\","
              "scope=\"repository:ns/app:pull,push\",error=\"invalid_token\"",
              &challenge),
        0);
    assert_int_equal(challenge.scheme, AUTH_BEARER);
    assert_string_equal(challenge.realm, "https://dockerauth-ee-vpc.cn-hangzhou.aliyuncs.com/auth");
    assert_string_equal(challenge.service, "registry.aliyuncs.com:cn-hangzhou:china:cri-abc123");
    assert_string_equal(challenge.scope, "repository:ns/app:pull,push");
    assert_string_equal(challenge.error, "invalid_token");
}

static void forms_that_are_accepted(void **state)
{
    struct auth_challenge challenge;

    (void)state;
    assert_int_equal(parse("Basic realm=basic-realm", &challenge), 0);
    assert_int_equal(challenge.scheme, AUTH_BASIC);
    assert_string_equal(challenge.realm, "basic-realm");
    assert_string_equal(challenge.service, "");
    assert_int_equal(parse("bEaReR scope=\"x\" , REALM = \"a\\\"b\\\\c\" ,, unknown=1", &challenge),
                     0);
    assert_string_equal(challenge.realm, "a\"b\\c");
    assert_string_equal(challenge.scope, "x");
    assert_int_equal(parse("Bearer realm=\"a\", Basic realm=\"b\"", &challenge), 0);
    assert_string_equal(challenge.realm, "a");
}

static void forms_that_are_refused(void **state)
{
    static const char *const bad[] = {
        "",
        " ",
        "Bearer",
        "Bearer ",
        "Bearer realm",
        "Bearer realm=",
        "Bearer realm=\"\"",
        "Bearer realm=\"open",
        "Bearer realm=\"a\\",
        "Bearer realm=\"a\x01\"",
        "Bearer realm=\"a\",realm=\"b\"",
        "Bearer scope=\"x\"",
        "Bearer realm=\"a\" ; x",
        "=x",
        "Bearer=x realm=\"a\"",
    };
    struct auth_challenge challenge = {.realm = "untouched"};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(parse(bad[i], &challenge), E_MALFORMED);
    assert_int_equal(parse("Digest realm=\"a\"", &challenge), E_UNSUPPORTED);
    assert_int_equal(parse("Negotiate", &challenge), E_UNSUPPORTED);
    assert_string_equal(challenge.realm, "untouched");
}

static void lengths_are_bounded(void **state)
{
    char *text = malloc(8000);
    struct auth_challenge challenge;
    int n = snprintf(text, 8000, "Bearer realm=\"%01024d\"", 0);

    (void)state;
    assert_int_equal(auth_challenge_parse(text, (size_t)n, &challenge), 0);
    n = snprintf(text, 8000, "Bearer realm=\"%01025d\"", 0);
    assert_int_equal(auth_challenge_parse(text, (size_t)n, &challenge), E_TOO_LARGE);
    n = snprintf(text, 8000, "Bearer %065d=1,realm=a", 0);
    assert_int_equal(auth_challenge_parse(text, (size_t)n, &challenge), E_TOO_LARGE);
    n = snprintf(text, 8000, "%040d realm=a", 0);
    assert_int_equal(auth_challenge_parse(text, (size_t)n, &challenge), E_TOO_LARGE);
    n = snprintf(text, 8000,
                 "Bearer realm=a,x=\"%01000d\",x=\"%01000d\",x=\"%01000d\",x=\"%01100d\"", 0, 0, 0,
                 0);
    assert_int_equal(auth_challenge_parse(text, (size_t)n, &challenge), E_TOO_LARGE);
    free(text);
}

/* ORG-4 */
static void realms(void **state)
{
    struct registry_entry entry = {.endpoint = "https://registry.test:5000",
                                   .realm_hosts = {"auth.test", "", "tokens.test:8443"}};

    (void)state;
    assert_true(auth_realm_allowed(&entry, "https://registry.test/token"));
    assert_true(auth_realm_allowed(&entry, "https://registry.test:5000/token"));
    assert_true(auth_realm_allowed(&entry, "https://AUTH.test/token"));
    assert_true(auth_realm_allowed(&entry, "https://auth.test:444/token"));
    assert_true(auth_realm_allowed(&entry, "https://tokens.test:8443/t"));
    assert_false(auth_realm_allowed(&entry, "https://tokens.test/t"));
    assert_false(auth_realm_allowed(&entry, "http://auth.test/token"));
    assert_false(auth_realm_allowed(&entry, "http://registry.test:5000/token"));
    assert_false(auth_realm_allowed(&entry, "https://evil.test/"));
    assert_false(auth_realm_allowed(&entry, "https://registry.test@evil.test/"));
    assert_false(auth_realm_allowed(&entry, "https://registry.test.evil.test/"));
    assert_false(auth_realm_allowed(&entry, "registry.test"));
    assert_false(auth_realm_allowed(&entry, ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(acr_challenge),
        cmocka_unit_test(forms_that_are_accepted),
        cmocka_unit_test(forms_that_are_refused),
        cmocka_unit_test(lengths_are_bounded),
        cmocka_unit_test(realms),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
