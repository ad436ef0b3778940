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
    return registry_login_parse(text, strlen(text), registry, false, &login);
}

static void expect(const char *text, const char *registry, const char *user, const char *password)
{
    assert_int_equal(parse(text, registry), 0);
    assert_int_equal(login.kind, REGISTRY_LOGIN_PASSWORD);
    assert_string_equal(login.token, "");
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
        "\"t.test\":{\"identitytoken\":\"\"},"
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

static void expect_token(const char *text, const char *registry, enum registry_login_kind kind,
                         const char *token)
{
    assert_int_equal(parse(text, registry), 0);
    assert_int_equal(login.kind, kind);
    assert_string_equal(login.token, token);
    assert_true(login.user[0] == '\0' && login.password[0] == '\0');
}

static void tokens_go_before_passwords(void **state)
{
    static const char text[] =
        "{\"auths\":{"
        /* As docker login writes it: a user, no password, and the token. */
        "\"i.test\":{\"auth\":\"MDAwMDow\",\"identitytoken\":\"ey.J-id_1/+=\"},"
        "\"r.test\":{\"username\":\"u\",\"password\":\"p\",\"identitytoken\":\"id\","
        "\"registrytoken\":\"reg\"},"
        "\"e.test\":{\"username\":\"u\",\"password\":\"p\",\"identitytoken\":\"\","
        "\"registrytoken\":\"\"},"
        "\"b.test\":{\"identitytoken\":\"a b\"},"
        "\"l.test\":{\"registrytoken\":\"a\\r\\nX: y\"},"
        "\"n.test\":{\"identitytoken\":3}"
        "}}";
    static char big[REGISTRY_LOGIN_TOKEN_MAX + 80];
    int head = snprintf(big, sizeof big, "{\"auths\":{\"r.test\":{\"identitytoken\":\"");

    (void)state;
    expect_token(text, "i.test", REGISTRY_LOGIN_IDENTITY, "ey.J-id_1/+=");
    expect_token(text, "r.test", REGISTRY_LOGIN_BEARER, "reg");
    expect(text, "e.test", "u", "p");
    assert_int_equal(parse(text, "b.test"), E_MALFORMED);
    assert_int_equal(parse(text, "l.test"), E_MALFORMED);
    assert_int_equal(parse(text, "n.test"), E_UNSUPPORTED);
    for (size_t over = 0; over < 2; over++) {
        memset(big + head, 't', REGISTRY_LOGIN_TOKEN_MAX + over);
        memcpy(big + head + REGISTRY_LOGIN_TOKEN_MAX + over, "\"}}}", 5);
        assert_int_equal(parse(big, "r.test"), over == 0 ? 0 : E_TOO_LARGE);
    }
}

static void keys_may_stand_for_the_hosts_below(void **state)
{
    static const char text[] = "{\"auths\":{"
                               "\"*.corp.test:5000\":{\"username\":\"all\",\"password\":\"p\"},"
                               "\"b.corp.test:5000\":{\"username\":\"b\",\"password\":\"p\"},"
                               "\"https://*.hub.test/v2/\":{\"identitytoken\":\"id\"},"
                               "\"*.test\":{\"username\":\"top\",\"password\":\"p\"},"
                               "\"*\":{\"username\":\"any\",\"password\":\"p\"}"
                               "}}";
    static const char *const others[] = {"x.a.corp.test:5000", "a.corp.test", "corp.test:5000",
                                         "acorp.test:5000",    "a.test",      "xcorp.test:5000",
                                         "localhost",          "a.hub.test:1"};

    (void)state;
    expect(text, "a.corp.test:5000", "all", "p");
    expect(text, "b.corp.test:5000", "b", "p"); /* its own goes before */
    expect_token(text, "a.hub.test", REGISTRY_LOGIN_IDENTITY, "id");
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        assert_int_equal(parse(text, others[i]), E_NOT_FOUND);
}

/* Whoever chooses the host would choose who gets the password (A1, A5). */
static void patterns_need_files_that_name_hosts(void **state)
{
    static const char json[] = "{\"auths\":{\"a.x.test\":{\"auth\":\"YWxpY2U6c2VjcmV0MQ==\"}}}";

    (void)state;
    assert_int_equal(registry_login_parse("u:p", 3, "a.x.test", true, &login), E_REFUSED);
    assert_int_equal(registry_login_parse("", 0, "a.x.test", true, &login), E_REFUSED);
    assert_int_equal(registry_login_parse(json, strlen(json), "a.x.test", true, &login), 0);
    assert_string_equal(login.user, "alice");
    assert_int_equal(registry_login_parse(json, strlen(json), "b.x.test", true, &login),
                     E_NOT_FOUND);
}

/* HRD-3: no program is run, so its name is all there is to tell. */
static void helpers_are_named_and_not_run(void **state)
{
    static const char text[] =
        "{\"auths\":{\"a.test\":{\"auth\":\"YWxpY2U6c2VjcmV0MQ==\"},\"e.test\":{}},"
        "\"credHelpers\":{\"a.test\":\"no\",\"h.test:5000\":\"ecr-login\",\"x.h.test\":\"../sh "
        "\\n\"},"
        "\"credsStore\":\"desktop.exe\"}";

    (void)state;
    expect(text, "a.test", "alice", "secret1"); /* what is in the file needs no program */
    assert_string_equal(login.helper, "");
    assert_int_equal(parse(text, "h.test:5000"), E_UNSUPPORTED);
    assert_string_equal(login.helper, "ecr-login");
    assert_int_equal(parse(text, "x.h.test"), E_UNSUPPORTED);
    assert_string_equal(login.helper, "?");
    assert_int_equal(parse(text, "e.test"), E_UNSUPPORTED);
    assert_string_equal(login.helper, "desktop.exe");
    assert_int_equal(parse(text, "other.test"), E_UNSUPPORTED);
    assert_string_equal(login.helper, "desktop.exe");
    assert_int_equal(registry_login_parse(text, strlen(text), "other.test", true, &login),
                     E_NOT_FOUND);
    assert_string_equal(login.helper, "");
    assert_int_equal(registry_login_parse(text, strlen(text), "h.test:5000", true, &login),
                     E_UNSUPPORTED);
    assert_int_equal(parse("{\"credsStore\":3,\"credHelpers\":\"x\"}", "a.test"), E_NOT_FOUND);
    assert_int_equal(parse("{\"auths\":{\"a.test\":{}},\"credsStore\":\"\"}", "a.test"),
                     E_UNSUPPORTED);
    assert_string_equal(login.helper, "");
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
        cmocka_unit_test(tokens_go_before_passwords),
        cmocka_unit_test(keys_may_stand_for_the_hosts_below),
        cmocka_unit_test(patterns_need_files_that_name_hosts),
        cmocka_unit_test(helpers_are_named_and_not_run),
        cmocka_unit_test(bad_files_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
