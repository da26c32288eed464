use super::*;

#[test]
fn formats_accept_and_refuse() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("bsonobjectid", &["507f1f77bcf86cd799439011"], &["507f1f77", "zz7f1f77bcf86cd799439011"]),
        (
            "uri",
            &["http://a/b?c", "/a/b", "mailto:a@b.c", "https://u:p@h:80/x", "http://[::1]:80"],
            &["a/b", "", "http://a b/", "http://a:x/", "1a:b"],
        ),
        (
            "email",
            &["a@b.c", "Joe <a@b>", "\"a b\"@c.d", "a@[127.0.0.1]"],
            &["a", "@b", "a@", "a@b..c", "a b@c"],
        ),
        ("hostname", &["a", "a.example.com", "a-b", "1a.com"], &["-a", "a..b", "a_b", ""]),
        ("ipv4", &["1.2.3.4"], &["1.2.3", "::1", "1.2.3.400"]),
        ("ipv6", &["::1", "fe80::1"], &["1.2.3.4", "g::"]),
        (
            "cidr",
            &["10.0.0.0/8", "::/0"],
            &["10.0.0.0", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/+8"],
        ),
        (
            "mac",
            &["01:02:03:04:05:06", "01-02-03-04-05-06", "0102.0304.0506"],
            &["01:02:03", "0g:02:03:04:05:06"],
        ),
        (
            "uuid",
            &["a8098c1a-f86e-11da-bd1a-00112444be1e", "A8098C1AF86E11DABD1A00112444BE1E"],
            &["a8098c1a", "a8098c1a--f86e-11da-bd1a-00112444be1e"],
        ),
        (
            "uuid3",
            &["bcd02e22-68f0-3046-a512-327cca9def8f"],
            &["025b0d74-00a2-4048-bf57-227c5111bb34"],
        ),
        (
            "uuid4",
            &["025b0d74-00a2-4048-bf57-227c5111bb34"],
            &["025b0d74-00a2-4048-cf57-227c5111bb34"],
        ),
        (
            "uuid5",
            &["886313e1-3b8a-5372-9b90-0c9aee199e5d"],
            &["886313e1-3b8a-6372-9b90-0c9aee199e5d"],
        ),
        ("isbn", &["0321751043", "978-0321751041"], &["0321751044", ""]),
        ("isbn10", &["0-321-75104-3", "080442957X"], &["978-0321751041"]),
        ("isbn13", &["978-0321751041"], &["0321751043"]),
        ("creditcard", &["4111-1111-1111-1111", "4111111111111111"], &["4111111111111112", ""]),
        ("ssn", &["111-11-1111", "111 11 1111", "111111111"], &["111-11-111", "a11-11-1111"]),
        ("hexcolor", &["#FFFFFF", "fff"], &["#FFFF", "#ggg"]),
        (
            "rgbcolor",
            &["rgb(1,2,3)", "rgb( 1 , 2 , 255 )"],
            &["rgb(1,2,256)", "rgb(1,2)", "(1,2,3)", "rgb(01,2,3)"],
        ),
        ("byte", &["aGVsbG8="], &["aGVsbG8", "?", ""]),
        ("password", &["", "anything"], &[]),
        ("date", &["2026-11-30"], &["2026-11-31", "2026-1-1", "2026-11-30T00:00:00Z"]),
        ("duration", &["22 ns", "1h30m", "3 days", "5s"], &["", "x", "5", "5 years"]),
        (
            "date-time",
            &["2014-12-15T19:30:20.000Z", "2014-12-15t19:30:20+01:00"],
            &["2014-12-15", "2014-12-15T24:00:00Z", "2014-12-15T19:30:20"],
        ),
        ("k8s-short-name", &["a-b", "1"], &["A", "a.b", "-a", ""]),
        ("k8s-long-name", &["a.b-c"], &["a..b", "A.b"]),
    ];
    for (name, valid, invalid) in cases {
        let format = Format::of(name, "string").unwrap_or_else(|| panic!("{name} is known"));
        for text in *valid {
            assert!(format.matches(text), "{name} accepts {text:?}");
        }
        for text in *invalid {
            assert!(!format.matches(text), "{name} refuses {text:?}");
        }
    }
}

#[test]
fn formats_belong_to_types() {
    assert_eq!(Format::of("int32", "integer"), Some(Format::Int32));
    assert_eq!(Format::of("int32", "string"), None);
    assert_eq!(Format::of("double", "number"), Some(Format::Double));
    assert_eq!(Format::of("date", "object"), None);
    assert_eq!(Format::of("date", ""), Some(Format::Date));
    assert_eq!(Format::of("quantity", "string"), None);
}
