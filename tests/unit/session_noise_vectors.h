/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Published test vectors for Noise_XXpsk0_25519_ChaChaPoly_BLAKE2b: all four entries of that name
 * in vectors.txt of github.com/flynn/noise (with and without prologue and handshake payloads). The
 * keys are the same in all. Messages 0-2 are the handshake, 3 and 4 one transport message each way.
 */
#ifndef SHOAL_TESTS_SESSION_NOISE_VECTORS_H
#define SHOAL_TESTS_SESSION_NOISE_VECTORS_H

#define VECTOR_MESSAGES 5
struct noise_vector {
    const char *prologue;
    struct {
        const char *payload;
        const char *ciphertext;
    } messages[VECTOR_MESSAGES];
};

static const char VECTOR_INIT_STATIC[] =
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
static const char VECTOR_RESP_STATIC[] =
    "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20";
static const char VECTOR_INIT_EPHEMERAL[] =
    "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f";
static const char VECTOR_RESP_EPHEMERAL[] =
    "4142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f60";
static const char VECTOR_PSK[] = "2176657279736563726574766572797365637265747665727973656372657421";

static const struct noise_vector VECTORS[] = {
    {
        .prologue = "",
        .messages =
            {
                {"",
                 "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254e89ad728d1b3555e"
                 "8affba774c455ecf"},
                {"",
                 "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466def8302a4ce14b6d"
                 "8679764f5605d198853b8968688d7432e591c0371dbd9c271e7509b3366c251d193c2b6173162f24"
                 "bfb214c9912e36dbc2bebcd0c5a41310"},
                {"",
                 "7ae518aa6a3882fac6b6d6fcd88954cccf404ea1aa2a075d533916de39720ebbd5a2fc7c5df275e6"
                 "d9ac02a752f651f67f737345e8c1310db32861d8fb0233f9"},
                {"79656c6c6f777375626d6172696e65",
                 "fd0638db68611323934a1dc1c26175ddc9abfbf887629ce59b4303156bcaa1"},
                {"7375626d6172696e6579656c6c6f77",
                 "3d9c9f74481ef29d381234288ecb1d26afa997692fff8407cbf6da726a5725"},
            },
    },
    {
        .prologue = "",
        .messages =
            {
                {"746573745f6d73675f30",
                 "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd1662541fe2db7a97bbe9c0"
                 "027b7090cb11725f0947318b6d1f1ad08ce7"},
                {"746573745f6d73675f31",
                 "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466def8302a4ce14b6d"
                 "8679764f5605d198853b8968688d7432e591c0371dbd9c27e50840bb3f7e4c87ca8f5414ba3078aa"
                 "5c032641bc1cdaccd5aa58bfd328b2972ff47f99ced9a6b7aef3"},
                {"746573745f6d73675f32",
                 "7ae518aa6a3882fac6b6d6fcd88954cccf404ea1aa2a075d533916de39720ebb186eba1bc5bdad09"
                 "bcab5739864ca692519efda7f74013ae0602622d1accdeb04f261e1eb1ada91b5a00"},
                {"79656c6c6f777375626d6172696e65",
                 "fd0638db68611323934a1dc1c26175ddc9abfbf887629ce59b4303156bcaa1"},
                {"7375626d6172696e6579656c6c6f77",
                 "3d9c9f74481ef29d381234288ecb1d26afa997692fff8407cbf6da726a5725"},
            },
    },
    {
        .prologue = "6e6f74736563726574",
        .messages =
            {
                {"",
                 "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254daabd705d9da7c80"
                 "c426df55902fb9cc"},
                {"",
                 "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466def8302a4ce14b6d"
                 "8679764f5605d198853b8968688d7432e591c0371dbd9c27c142d82a45eca7997eeec4e81381209c"
                 "d1cc75dc52230a6ad5dc90432748d6df"},
                {"",
                 "7ae518aa6a3882fac6b6d6fcd88954cccf404ea1aa2a075d533916de39720ebb5a679823352dc4b0"
                 "bbbb47c9dc418fbf6185f09c57410138d19557733bdfd046"},
                {"79656c6c6f777375626d6172696e65",
                 "fd0638db68611323934a1dc1c26175ddc9abfbf887629ce59b4303156bcaa1"},
                {"7375626d6172696e6579656c6c6f77",
                 "3d9c9f74481ef29d381234288ecb1d26afa997692fff8407cbf6da726a5725"},
            },
    },
    {
        .prologue = "6e6f74736563726574",
        .messages =
            {
                {"746573745f6d73675f30",
                 "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd1662541fe2db7a97bbe9c0"
                 "027b1f62071910cfd2266573bb14a7de4342"},
                {"746573745f6d73675f31",
                 "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466def8302a4ce14b6d"
                 "8679764f5605d198853b8968688d7432e591c0371dbd9c27c0e397d4a328006c00af1dc428f95bc5"
                 "5c032641bc1cdaccd5aae41c3d70b1d39ac256cf6c07a7430831"},
                {"746573745f6d73675f32",
                 "7ae518aa6a3882fac6b6d6fcd88954cccf404ea1aa2a075d533916de39720ebb1eaeb854d104e73a"
                 "1406c7ff4ad6beed519efda7f74013ae060269ba43ed1a294c9c44cff50595ad1324"},
                {"79656c6c6f777375626d6172696e65",
                 "fd0638db68611323934a1dc1c26175ddc9abfbf887629ce59b4303156bcaa1"},
                {"7375626d6172696e6579656c6c6f77",
                 "3d9c9f74481ef29d381234288ecb1d26afa997692fff8407cbf6da726a5725"},
            },
    },
};

#endif
