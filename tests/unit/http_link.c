/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/http/link.c: pages of lists through the mirror (RFC 8288, OCI "Listing Tags"). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "err.h"
#include "http.h"

#define HOST "registry.test:5000"
#define NEXT "/v2/lib/app/tags/list?last=b&n=2"

struct row {
    const char *link, *ns, *wanted;
};

static const struct row rows[] = {
    {"<" NEXT ">; rel=\"next\"", "", "<" NEXT ">; rel=\"next\""},
    {"<" NEXT ">; rel=\"next\"", HOST, "<" NEXT "&ns=registry.test%3A5000>; rel=\"next\""},
    {"<http://" HOST NEXT ">; rel=\"next\"", "", "<" NEXT ">; rel=\"next\""},
    {"<https://REGISTRY.test:5000" NEXT ">", "a.test", "<" NEXT "&ns=a.test>"},
    {"<//" HOST NEXT ">", "a.test", "<" NEXT "&ns=a.test>"},
    {"<?last=b>;rel=next", "a.test", "<?last=b&ns=a.test>;rel=next"},
    {"<list>", "a.test", "<list?ns=a.test>"},
    {"<" NEXT ">", "[2001:db8::1]:5", "<" NEXT "&ns=%5B2001%3Adb8%3A%3A1%5D%3A5>"},
    {"<" NEXT "&ns=b.test>", "a.test", "<" NEXT "&ns=b.test>"},
    {"<https://other.test" NEXT ">; rel=next", "a.test", "<https://other.test" NEXT ">; rel=next"},
    {"<https://" HOST ".evil.test" NEXT ">", "", "<https://" HOST ".evil.test" NEXT ">"},
    {"</v2/a/tags/list>; rel=prev, </v2/b/tags/list>; rel=next", "r",
     "</v2/a/tags/list?ns=r>; rel=prev, </v2/b/tags/list?ns=r>; rel=next"},
    {"no target", "a.test", "no target"},
    {"", "a.test", ""},
    {"<>", "", "<>"},
};

static void test_rows(void **state)
{
    char out[256];
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(http_link_here(rows[i].link, HOST, rows[i].ns, out, sizeof out), 0);
        assert_string_equal(out, rows[i].wanted);
    }
}

static void test_malformed(void **state)
{
    char out[256];
    (void)state;
    assert_int_equal(http_link_here("<" NEXT, HOST, "", out, sizeof out), E_MALFORMED);
    assert_int_equal(http_link_here("<a>, <", HOST, "", out, sizeof out), E_MALFORMED);
}

/* Every length of buffer: the whole and its end, or E_TOO_LARGE. */
static void test_room(void **state)
{
    static const char link[] = "<" NEXT ">; rel=next";
    static const char wanted[] = "<" NEXT "&ns=a.test%3A1>; rel=next";
    char out[sizeof wanted + 8];
    (void)state;
    for (size_t room = 1; room < sizeof out; room++) {
        memset(out, 'x', sizeof out);
        int err = http_link_here(link, HOST, "a.test:1", out, room);
        assert_int_equal(err, room >= sizeof wanted ? 0 : E_TOO_LARGE);
        if (err == 0)
            assert_string_equal(out, wanted);
        assert_int_equal(out[room], 'x');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows), cmocka_unit_test(test_malformed), cmocka_unit_test(test_room)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
