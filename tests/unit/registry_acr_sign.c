/* SPDX-License-Identifier: Apache-2.0 */
/* Signatures of the cloud's APIs: every vector of ACR.md §3, encoding, times, and texts that do not
 * fit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "../../src/registry/acr_sign.h"

#define KEY       "LTAI5tExampleKeyId0001"
#define SECRET    "ExampleSecret0001abcdefghijklmn"
#define TEMP_KEY  "STS.ExampleTemp0001"
#define TEMP_PASS "TempSecret0001"
#define TOKEN     "CAISexample+token/with==chars&x=1 ~*"

static char form_bytes[4096], work_bytes[4096], query_bytes[1024], authorization_bytes[1024];
static struct acr_text form, work, query, authorization;

static void open_texts(void)
{
    acr__text_open(&form, form_bytes, sizeof form_bytes);
    acr__text_open(&work, work_bytes, sizeof work_bytes);
    acr__text_open(&query, query_bytes, sizeof query_bytes);
    acr__text_open(&authorization, authorization_bytes, sizeof authorization_bytes);
}

/* By KEY, to Container Registry. */
static struct acr_request request_of(const char *action, const char *version, const char *date,
                                     const char *nonce)
{
    struct acr_request request = {.method = "POST",
                                  .host = "cr-vpc.cn-hangzhou.aliyuncs.com",
                                  .action = action,
                                  .version = version,
                                  .format = "JSON",
                                  .key_id = KEY,
                                  .key_secret = SECRET};

    memcpy(request.date, date, strlen(date) + 1);
    memcpy(request.nonce, nonce, strlen(nonce) + 1);
    return request;
}

static void give_params(struct acr_request *request, const struct acr_param *params, unsigned count)
{
    request->params = params;
    request->param_count = count;
}

static void give_temporary_keys(struct acr_request *request)
{
    request->key_id = TEMP_KEY;
    request->key_secret = TEMP_PASS;
    request->token = TOKEN;
}

static void ends_with(const char *text, const char *end)
{
    assert_true(strlen(text) >= strlen(end));
    assert_string_equal(text + strlen(text) - strlen(end), end);
}

/* The vendor's own [S9]. */
static void v1_official(void **state)
{
    struct acr_request request = request_of("DescribeRegions", "2014-05-26", "2016-02-23T12:46:24Z",
                                            "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf");

    (void)state;
    open_texts();
    request.method = "GET";
    request.format = "XML";
    request.key_id = "testid";
    request.key_secret = "testsecret";
    assert_int_equal(acr__sign_v1(&request, &form, &work), 0);
    assert_string_equal(
        work.bytes,
        "GET&%2F&AccessKeyId%3Dtestid%26Action%3DDescribeRegions%26Format%3DXML%26SignatureMethod%"
        "3DHMAC-SHA1%26SignatureNonce%3D3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf%26SignatureVersion%"
        "3D1.0%26Timestamp%3D2016-02-23T12%253A46%253A24Z%26Version%3D2014-05-26");
    ends_with(form.bytes, "&Version=2014-05-26&Signature=OLeaidS1JvxuMvnyHOwuJ%2BuX5qY%3D");
}

static void v1_a1(void **state)
{
    struct acr_param params[] = {{"ModuleName", "Registry"}, {"InstanceId", "cri-abc123"}};
    struct acr_request request =
        request_of("ListInstanceEndpoint", "2018-12-01", "2026-01-02T03:04:05Z",
                   "0123456789abcdef0123456789abcdef");

    (void)state;
    open_texts();
    request.method = "GET";
    give_params(&request, params, 2);
    assert_int_equal(acr__sign_v1(&request, &form, &work), 0);
    ends_with(form.bytes, "&Signature=R8jWb4QZ8nX4FDTQFDwCYwEpzy0%3D");
}

static void v1_a2_with_a_token(void **state)
{
    struct acr_param params[] = {{"RoleArn", "acs:ram::1234567890123456:role/acr-b"},
                                 {"RoleSessionName", "p2p-agent@node_1"},
                                 {"DurationSeconds", "3600"}};
    struct acr_request request = request_of("AssumeRole", "2015-04-01", "2026-01-02T03:04:05Z",
                                            "fedcba9876543210fedcba9876543210");

    (void)state;
    open_texts();
    give_temporary_keys(&request);
    give_params(&request, params, 3);
    assert_int_equal(acr__sign_v1(&request, &form, &work), 0);
    assert_non_null(strstr(form.bytes, "&RoleSessionName=p2p-agent%40node_1&SecurityToken="
                                       "CAISexample%2Btoken%2Fwith%3D%3Dchars%26x%3D1%20~%2A&"
                                       "SignatureMethod="));
    ends_with(form.bytes, "&Signature=SrTYURPdMQJFj8eA42f3ADnu0rc%3D");
}

static void v3_check(const struct acr_request *request, const char *hash, const char *signature)
{
    struct acr_v3 made;

    open_texts();
    assert_int_equal(acr__sign_v3(request, &query, &authorization, &work, &made), 0);
    assert_string_equal(made.request_hash, hash);
    assert_string_equal(made.signature, signature);
    assert_string_equal(made.body_hash,
                        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

/* The vendor's own [S8]. */
static void v3_official(void **state)
{
    struct acr_param params[] = {{"ImageId", "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd"},
                                 {"RegionId", "cn-shanghai"}};
    struct acr_request request = request_of("RunInstances", "2014-05-26", "2023-10-26T10:22:32Z",
                                            "3156853299f313e23d1673dc12e1703d");

    (void)state;
    request.key_id = "YourAccessKeyId";
    request.key_secret = "YourAccessKeySecret";
    request.host = "ecs.cn-shanghai.aliyuncs.com";
    give_params(&request, params, 2);
    v3_check(&request, "7ea06492da5221eba5297e897ce16e55f964061054b7695beedaac1145b1e259",
             "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0");
    assert_string_equal(query.bytes,
                        "ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd&RegionId="
                        "cn-shanghai");
}

static void v3_b1(void **state)
{
    struct acr_param params[] = {{"ModuleName", "Registry"}, {"InstanceId", "cri-abc123"}};
    struct acr_request request =
        request_of("GetInstanceVpcEndpoint", "2018-12-01", "2026-01-02T03:04:05Z",
                   "0123456789abcdef0123456789abcdef");

    (void)state;
    give_params(&request, params, 2);
    v3_check(&request, "2205de73328c64c72a52f6aaec0b96bdae983319212726b85dde94821b151c51",
             "a139f36ad12e61e08eb0da860d4a91cfc0ff56d6d6cc7da7b44a301b0fbc089f");
    assert_string_equal(authorization.bytes,
                        "ACS3-HMAC-SHA256 Credential=" KEY
                        ",SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;"
                        "x-acs-signature-nonce;x-acs-version,Signature="
                        "a139f36ad12e61e08eb0da860d4a91cfc0ff56d6d6cc7da7b44a301b0fbc089f");
}

static void v3_b2_with_a_token(void **state)
{
    struct acr_param params[] = {{"InstanceId", "cri-abc123"}};
    struct acr_request request =
        request_of("ListInstanceEndpoint", "2018-12-01", "2026-01-02T03:04:05Z",
                   "0123456789abcdef0123456789abcdee");
    struct fetch_header headers[ACR_V3_HEADERS_MAX];
    struct acr_v3 made;
    unsigned count;

    (void)state;
    give_temporary_keys(&request);
    give_params(&request, params, 1);
    v3_check(&request, "ba3366ce83ac34b6c62be4b1bc5f2a3082d8af1dfda6d3f30bf52b4469b6d06c",
             "a73f652c7fa823208096d4094defec716cd9fcb2d3a097e21001757e9f786492");
    assert_non_null(strstr(authorization.bytes,
                           "SignedHeaders=host;x-acs-accesskey-id;x-acs-action;"
                           "x-acs-content-sha256;x-acs-date;x-acs-security-token;"
                           "x-acs-signature-nonce;x-acs-version,"));
    open_texts();
    assert_int_equal(acr__sign_v3(&request, &query, &authorization, &work, &made), 0);
    count = acr__v3_headers(&request, &made, authorization.bytes, headers);
    assert_int_equal(count, 9);
    for (unsigned i = 0; i < count; i++) {
        assert_string_not_equal(headers[i].name, "host"); /* the HTTP client's own */
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(headers[i].name, headers[j].name);
    }
}

/* A content type that is sent is signed, and a body is hashed. */
static void v3_signs_body_and_type(void **state)
{
    struct acr_request request = request_of("X", "1", "2026-01-02T03:04:05Z", "0");
    struct acr_v3 made;

    (void)state;
    request.host = "h:18080";
    request.content_type = "application/json";
    request.body = "abc";
    open_texts();
    assert_int_equal(acr__sign_v3(&request, &query, &authorization, &work, &made), 0);
    assert_string_equal(made.body_hash,
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_non_null(strstr(work.bytes, "\ncontent-type:application/json\nhost:h:18080\n"));
    assert_non_null(strstr(authorization.bytes, "SignedHeaders=content-type;host;x-acs-action;"));
}

/* The vendor's check of the query [S8], and an empty value. */
static void queries_are_encoded(void **state)
{
    struct acr_param params[] = {{"Value", "v=a b*c~d/e"}, {"RR", "_acme-challenge"}, {"k", ""}};
    struct acr_request request = request_of("X", "1", "2026-01-02T03:04:05Z", "0");
    struct acr_v3 made;

    (void)state;
    give_params(&request, params, 3);
    open_texts();
    assert_int_equal(acr__sign_v3(&request, &query, &authorization, &work, &made), 0);
    assert_string_equal(query.bytes, "RR=_acme-challenge&Value=v%3Da%20b%2Ac~d%2Fe&k=");
}

static void bytes_are_encoded(void **state)
{
    (void)state;
    open_texts();
    acr__text_encode(&form, "AZaz09-_.~ +*/:&=%\x7f\xc3\xa9");
    assert_string_equal(form.bytes, "AZaz09-_.~%20%2B%2A%2F%3A%26%3D%25%7F%C3%A9");
}

/* What does not fit is refused at every size, and nothing is written beyond the buffer. */
static void small_texts_are_refused(void **state)
{
    struct acr_param params[] = {{"InstanceId", "cri-abc123"}};
    struct acr_request request =
        request_of("ListInstanceEndpoint", "2018-12-01", "2026-01-02T03:04:05Z",
                   "0123456789abcdef0123456789abcdef");
    struct acr_v3 made;
    char secret[ACR_SECRET_BYTES_MAX + 2], small[256];

    (void)state;
    give_params(&request, params, 1);
    for (size_t room = 1; room < 200; room++) {
        open_texts();
        acr__text_open(room % 2 == 0 ? &form : &work, small, room);
        small[room] = 'x';
        assert_int_equal(acr__sign_v1(&request, &form, &work), E_TOO_LARGE);
        assert_int_equal(small[room], 'x');
    }
    for (size_t room = 1; room < 100; room++) {
        open_texts();
        acr__text_open(room % 2 == 0 ? &authorization : &work, small, room);
        small[room] = 'x';
        assert_int_equal(acr__sign_v3(&request, &query, &authorization, &work, &made), E_TOO_LARGE);
        assert_int_equal(small[room], 'x');
    }
    memset(secret, 's', sizeof secret - 1);
    secret[sizeof secret - 1] = '\0';
    request.key_secret = secret;
    open_texts();
    assert_int_equal(acr__sign_v1(&request, &form, &work), E_TOO_LARGE);
    assert_int_equal(acr__sign_v3(&request, &query, &authorization, &work, &made), E_TOO_LARGE);
    request.key_secret = SECRET;
    request.param_count = ACR_PARAMS_MAX + 1;
    assert_int_equal(acr__sign_v1(&request, &form, &work), E_TOO_LARGE);
    assert_int_equal(acr__sign_v3(&request, &query, &authorization, &work, &made), E_TOO_LARGE);
}

static void dates_go_there_and_back(void **state)
{
    static const char *const bad[] = {"",
                                      "2026-01-02T03:04:05",
                                      "2026-01-02 03:04:05Z",
                                      "2026-13-02T03:04:05Z",
                                      "2026-01-02T03:04:05Zx",
                                      "2026-1-2T3:4:5Z",
                                      "1960-01-02T03:04:05Z"};
    char text[ACR_DATE_BYTES];
    uint64_t wall_s = 0;

    (void)state;
    acr__date_put(1767323045, text);
    assert_string_equal(text, "2026-01-02T03:04:05Z");
    assert_int_equal(acr__date_parse(text, &wall_s), 0);
    assert_int_equal(wall_s, 1767323045);
    acr__date_put(UINT64_MAX, text);
    assert_string_equal(text, "1970-01-01T00:00:00Z");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(acr__date_parse(bad[i], &wall_s), E_MALFORMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(v1_official),
        cmocka_unit_test(v1_a1),
        cmocka_unit_test(v1_a2_with_a_token),
        cmocka_unit_test(v3_official),
        cmocka_unit_test(v3_b1),
        cmocka_unit_test(v3_b2_with_a_token),
        cmocka_unit_test(v3_signs_body_and_type),
        cmocka_unit_test(queries_are_encoded),
        cmocka_unit_test(bytes_are_encoded),
        cmocka_unit_test(small_texts_are_refused),
        cmocka_unit_test(dates_go_there_and_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
