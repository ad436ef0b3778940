/* SPDX-License-Identifier: Apache-2.0 */
/* Logins out of files: dockerconfigjson and plain; nothing that could end a header's line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "registry.h"

static struct registry_login login;

static int parse(const char *text, const char *registry)
{
    memset(&login, 0, sizeof login);
    return registry_login_parse(text, strlen(text), registry, &login);
}

static void expect(const char *text, const char *registry, const char *user, const char *password)
{
    assert_int_equal(parse(text, registry), 0);
    assert_string_equal(login.user, user);
    assert_string_equal(login.password, password);
}

static void plain_files(void **state)
{
    (void)state;
    expect("alice:secret1", "r.test", "alice", "secret1");
    expect("alice:secret1\n", "any.test", "alice", "secret1");
    expect("alice\nsecret1\n", "r.test", "alice", "secret1");
    expect("alice:a:b\r\n", "r.test", "alice", "a:b");
    expect("alice:", "r.test", "alice", "");
    expect("_json_key\n{\"a\":1}", "r.test", "_json_key", "{\"a\":1}");
}

static void docker_config(void **state)
{
    static const char text[] =
        " \n{\"auths\":{"
        "\"a.test\":{\"auth\":\"YWxpY2U6c2VjcmV0MQ==\"},"
        "\"https://b.test:5000/v2/\":{\"username\":\"bob\",\"password\":\"p:w\",\"auth\":\"x\"},"
        "\"https://index.docker.io/v1/\":{\"auth\":\"aHViOnB3\"},"
        "\"t.test\":{\"identitytoken\":\"x\"},"
        "\"m.test\":{\"auth\":\"bm9jb2xvbg==\"},"
        "\"n.test\":{\"auth\":\"!!\"}"
        "}}";

    (void)state;
    expect(text, "a.test", "alice", "secret1");
    expect(text, "b.test:5000", "bob", "p:w");
    expect(text, "docker.io", "hub", "pw");
    assert_int_equal(parse(text, "b.test"), E_NOT_FOUND);
    assert_int_equal(parse(text, "a.tes"), E_NOT_FOUND);
    assert_int_equal(parse(text, "x.a.test"), E_NOT_FOUND);
    assert_int_equal(parse(text, "t.test"), E_UNSUPPORTED);
    assert_int_equal(parse(text, "m.test"), E_MALFORMED);
    assert_int_equal(parse(text, "n.test"), E_MALFORMED);
}

static void bad_files_are_refused(void **state)
{
    static const char *const bad[] = {
        "",          "\n",       "alice", ":pw",
        "a\rb:pw",   "a:p\x01w", "{",     "{\"auths\":{},\"auths\":{}}",
        "a:p\nw:x\n"};
    static char big[70 * 1024];
    char text[6000];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(parse(bad[i], "r.test"), E_MALFORMED);
    assert_int_equal(parse("{}", "r.test"), E_NOT_FOUND);
    assert_int_equal(parse("{\"auths\":[]}", "r.test"), E_NOT_FOUND);
    assert_int_equal(parse("{\"auths\":{\"r.test\":3}}", "r.test"), E_UNSUPPORTED);
    /* A line end inside a JSON string does not become one in a header. */
    assert_int_equal(
        parse("{\"auths\":{\"r.test\":{\"username\":\"a\",\"password\":\"x\\r\\ny\"}}}", "r.test"),
        E_MALFORMED);
    memset(text, 'u', sizeof text);
    memcpy(text + 256, ":p", 3);
    assert_int_equal(parse(text, "r.test"), E_TOO_LARGE);
    memset(text, 'p', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    memcpy(text, "u:", 2);
    assert_int_equal(parse(text, "r.test"), E_TOO_LARGE);
    memset(big, ' ', sizeof big - 1);
    assert_int_equal(parse(big, "r.test"), E_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_files),
        cmocka_unit_test(docker_config),
        cmocka_unit_test(bad_files_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
