"""
TPC-H: the benchmark's eight tables with their primary keys and no other index, its twenty-two queries as PostgreSQL
spells them, and what an application would ask of such tables beside.

The rows are drawn as its generator draws them (who buys, what is shipped when, how long names are), by a hash of the
key: the same on every machine. See `judging` for what is done with them.
"""

from __future__ import annotations

from typing import Any

from judging import Situation

ROWS = 200_000  # of lineitem, about: the benchmark's scale factor of 0.033

SCHEMA = """
CREATE FUNCTION of(salt int, key bigint, n bigint) RETURNS bigint IMMUTABLE PARALLEL SAFE LANGUAGE sql
    AS 'SELECT (hashint8extended(key, salt) & 9223372036854775807) % n';
CREATE FUNCTION words(salt int, key bigint, n int) RETURNS text IMMUTABLE PARALLEL SAFE LANGUAGE sql AS $$
    SELECT string_agg((array['carefully', 'quickly', 'furiously', 'regular', 'final', 'ironic', 'express', 'pending',
        'even', 'bold', 'silent', 'deposits', 'packages', 'accounts', 'theodolites', 'foxes', 'ideas', 'platelets',
        'sleep', 'haggle', 'nag', 'above the', 'along the', 'among the'])[1 + of(salt + i, key, 24)], ' ')
    FROM generate_series(1, n) i $$;
CREATE TABLE region (r_regionkey int PRIMARY KEY, r_name char(25) NOT NULL, r_comment varchar(152));
INSERT INTO region SELECT n - 1, name, words(1, n, 6)
FROM unnest(array['AFRICA', 'AMERICA', 'ASIA', 'EUROPE', 'MIDDLE EAST']) WITH ORDINALITY AS r (name, n);
CREATE TABLE nation (
    n_nationkey int PRIMARY KEY, n_name char(25) NOT NULL, n_regionkey int NOT NULL, n_comment varchar(152)
);
INSERT INTO nation SELECT n - 1, name, (array[0, 1, 1, 1, 4, 0, 3, 3, 2, 2, 4, 4, 2, 4, 0, 0, 0, 1, 2, 3, 4, 2, 3, 3, 1])[n],
    words(2, n, 8)
FROM unnest(array['ALGERIA', 'ARGENTINA', 'BRAZIL', 'CANADA', 'EGYPT', 'ETHIOPIA', 'FRANCE', 'GERMANY', 'INDIA',
    'INDONESIA', 'IRAN', 'IRAQ', 'JAPAN', 'JORDAN', 'KENYA', 'MOROCCO', 'MOZAMBIQUE', 'PERU', 'CHINA', 'ROMANIA',
    'SAUDI ARABIA', 'VIETNAM', 'RUSSIA', 'UNITED KINGDOM', 'UNITED STATES']) WITH ORDINALITY AS r (name, n);
CREATE TABLE supplier (
    s_suppkey int PRIMARY KEY, s_name char(25) NOT NULL, s_address varchar(40) NOT NULL, s_nationkey int NOT NULL,
    s_phone char(15) NOT NULL, s_acctbal numeric(15, 2) NOT NULL, s_comment varchar(101) NOT NULL
);
INSERT INTO supplier SELECT g, 'Supplier#' || lpad(g::text, 9, '0'), left(md5(g::text), 10 + of(11, g, 20)::int), nation,
    (10 + nation) || '-' || 100 + of(12, g, 900) || '-' || 100 + of(13, g, 900) || '-' || 1000 + of(14, g, 9000),
    (of(15, g, 1099999) - 99999) / 100.0,
    words(16, g, 6) || CASE WHEN of(17, g, 200) = 0 THEN ' Customer Complaints' ELSE '' END
FROM (SELECT g, of(10, g, 25) AS nation FROM generate_series(1, {rows} / 600) g) s;
CREATE TABLE part (
    p_partkey int PRIMARY KEY, p_name varchar(55) NOT NULL, p_mfgr char(25) NOT NULL, p_brand char(10) NOT NULL,
    p_type varchar(25) NOT NULL, p_size int NOT NULL, p_container char(10) NOT NULL,
    p_retailprice numeric(15, 2) NOT NULL, p_comment varchar(23) NOT NULL
);
INSERT INTO part SELECT g,
    (SELECT string_agg((array['almond', 'antique', 'azure', 'beige', 'black', 'blue', 'blush', 'brown', 'chiffon', 'coral',
        'cream', 'cyan', 'drab', 'firebrick', 'floral', 'forest', 'frosted', 'ghost', 'gold', 'green', 'grey', 'honeydew',
        'indian', 'ivory', 'khaki', 'lace', 'lemon', 'lime', 'linen', 'maroon', 'metallic', 'navy', 'olive', 'orange',
        'peach', 'pink', 'plum', 'puff', 'red', 'rose', 'sandy', 'sienna', 'sky', 'snow', 'steel', 'tan', 'thistle',
        'tomato', 'violet', 'wheat'])[1 + of(20 + i, g, 50)], ' ') FROM generate_series(1, 5) i),
    'Manufacturer#' || brand / 5 + 1, 'Brand#' || brand / 5 + 1 || brand % 5 + 1,
    (array['STANDARD', 'SMALL', 'MEDIUM', 'LARGE', 'ECONOMY', 'PROMO'])[1 + of(31, g, 6)] || ' ' ||
    (array['ANODIZED', 'BURNISHED', 'PLATED', 'POLISHED', 'BRUSHED'])[1 + of(32, g, 5)] || ' ' ||
    (array['TIN', 'NICKEL', 'BRASS', 'STEEL', 'COPPER'])[1 + of(33, g, 5)], 1 + of(34, g, 50),
    (array['SM', 'LG', 'MED', 'JUMBO', 'WRAP'])[1 + of(35, g, 5)] || ' ' ||
    (array['CASE', 'BOX', 'BAG', 'JAR', 'PKG', 'PACK', 'CAN', 'DRUM'])[1 + of(36, g, 8)],
    (90000 + g / 10 % 20001 + 100 * (g % 1000)) / 100.0, left(words(37, g, 2), 22)
FROM (SELECT g, of(30, g, 25) AS brand FROM generate_series(1, {rows} / 30) g) s;
CREATE TABLE partsupp (
    ps_partkey int NOT NULL, ps_suppkey int NOT NULL, ps_availqty int NOT NULL, ps_supplycost numeric(15, 2) NOT NULL,
    ps_comment varchar(199) NOT NULL, PRIMARY KEY (ps_partkey, ps_suppkey)
);
INSERT INTO partsupp SELECT p, (p + i * ({rows} / 600 / 4 + (p - 1) / ({rows} / 600))) % ({rows} / 600) + 1,
    1 + of(41, p * 4 + i, 9999), (100 + of(42, p * 4 + i, 99901)) / 100.0, words(43, p * 4 + i, 14)
FROM generate_series(1, {rows} / 30) p, generate_series(0, 3) i;
CREATE TABLE customer (
    c_custkey int PRIMARY KEY, c_name varchar(25) NOT NULL, c_address varchar(40) NOT NULL, c_nationkey int NOT NULL,
    c_phone char(15) NOT NULL, c_acctbal numeric(15, 2) NOT NULL, c_mktsegment char(10) NOT NULL,
    c_comment varchar(117) NOT NULL
);
INSERT INTO customer SELECT g, 'Customer#' || lpad(g::text, 9, '0'), left(md5(g::text), 10 + of(51, g, 20)::int), nation,
    (10 + nation) || '-' || 100 + of(52, g, 900) || '-' || 100 + of(53, g, 900) || '-' || 1000 + of(54, g, 9000),
    (of(55, g, 1099999) - 99999) / 100.0,
    (array['AUTOMOBILE', 'BUILDING', 'FURNITURE', 'MACHINERY', 'HOUSEHOLD'])[1 + of(56, g, 5)], left(words(57, g, 9), 116)
FROM (SELECT g, of(50, g, 25) AS nation FROM generate_series(1, {rows} / 40) g) s;
CREATE TABLE orders (
    o_orderkey int PRIMARY KEY, o_custkey int NOT NULL, o_orderstatus char(1) NOT NULL,
    o_totalprice numeric(15, 2) NOT NULL, o_orderdate date NOT NULL, o_orderpriority char(15) NOT NULL,
    o_clerk char(15) NOT NULL, o_shippriority int NOT NULL, o_comment varchar(79) NOT NULL
);
-- A third of the customers has no order: those whose key three divides.
INSERT INTO orders SELECT (g / 8) * 32 + g % 8 + 1, c - (c % 3 = 0)::int,
    CASE WHEN d < '1995-03-15' THEN 'F' WHEN d > '1995-06-17' THEN 'O' ELSE 'P' END,
    (100000 + of(62, g, 40000000)) / 100.0, d,
    (array['1-URGENT', '2-HIGH', '3-MEDIUM', '4-NOT SPECIFIED', '5-LOW'])[1 + of(63, g, 5)],
    'Clerk#' || lpad((1 + of(64, g, greatest(1, {rows} / 6000)))::text, 9, '0'), 0,
    left(words(65, g, 5) || CASE WHEN of(66, g, 90) = 0 THEN ' special requests' ELSE '' END, 78)
FROM (SELECT g, 2 + of(60, g, {rows} / 40 - 1) AS c, date '1992-01-01' + of(61, g, 2406)::int AS d
    FROM generate_series(1, {rows} / 4) g) s;
CREATE TABLE lineitem (
    l_orderkey int NOT NULL, l_partkey int NOT NULL, l_suppkey int NOT NULL, l_linenumber int NOT NULL,
    l_quantity numeric(15, 2) NOT NULL, l_extendedprice numeric(15, 2) NOT NULL, l_discount numeric(15, 2) NOT NULL,
    l_tax numeric(15, 2) NOT NULL, l_returnflag char(1) NOT NULL, l_linestatus char(1) NOT NULL,
    l_shipdate date NOT NULL, l_commitdate date NOT NULL, l_receiptdate date NOT NULL, l_shipinstruct char(25) NOT NULL,
    l_shipmode char(10) NOT NULL, l_comment varchar(44) NOT NULL, PRIMARY KEY (l_orderkey, l_linenumber)
);
INSERT INTO lineitem SELECT o_orderkey, p,
    (p + of(73, k, 4) * ({rows} / 600 / 4 + (p - 1) / ({rows} / 600))) % ({rows} / 600) + 1, i, q,
    q * (90000 + p / 10 % 20001 + 100 * (p % 1000)) / 100.0, of(74, k, 11) / 100.0, of(75, k, 9) / 100.0,
    CASE WHEN s + r <= '1995-06-17' THEN (array['R', 'A'])[1 + of(76, k, 2)] ELSE 'N' END,
    CASE WHEN s > '1995-06-17' THEN 'O' ELSE 'F' END, s, o_orderdate + 30 + of(77, k, 61)::int, s + r,
    (array['DELIVER IN PERSON', 'COLLECT COD', 'NONE', 'TAKE BACK RETURN'])[1 + of(78, k, 4)],
    (array['REG AIR', 'AIR', 'RAIL', 'SHIP', 'TRUCK', 'MAIL', 'FOB'])[1 + of(79, k, 7)], left(words(80, k, 3), 43)
FROM (SELECT o_orderkey, o_orderdate, i, k, 1 + of(71, k, {rows} / 30) AS p, 1 + of(72, k, 50) AS q,
        o_orderdate + 1 + of(81, k, 121)::int AS s, 1 + of(82, k, 30)::int AS r
    FROM (SELECT o_orderkey, o_orderdate, i, o_orderkey * 8::bigint + i AS k
        FROM orders, generate_series(1, 1 + of(70, o_orderkey, 7)::int) i) o) l;
ALTER TABLE nation ADD FOREIGN KEY (n_regionkey) REFERENCES region;
ALTER TABLE supplier ADD FOREIGN KEY (s_nationkey) REFERENCES nation;
ALTER TABLE customer ADD FOREIGN KEY (c_nationkey) REFERENCES nation;
ALTER TABLE partsupp ADD FOREIGN KEY (ps_partkey) REFERENCES part, ADD FOREIGN KEY (ps_suppkey) REFERENCES supplier;
ALTER TABLE orders ADD FOREIGN KEY (o_custkey) REFERENCES customer;
ALTER TABLE lineitem ADD FOREIGN KEY (l_orderkey) REFERENCES orders,
    ADD FOREIGN KEY (l_partkey, l_suppkey) REFERENCES partsupp;
DROP FUNCTION words;
DROP FUNCTION of;
VACUUM ANALYZE;
"""

SITUATIONS: list[Situation] = []


def add(label: str, statement: str, tried: str, *values: dict[str, Any], heading: str = "The 22 queries") -> None:
    SITUATIONS.append(Situation(heading, statement, tried, values or ({},), label=label))


add(
    "Q1, pricing summary",
    """SELECT l_returnflag, l_linestatus, sum(l_quantity) AS sum_qty, sum(l_extendedprice) AS sum_base_price,
    sum(l_extendedprice * (1 - l_discount)) AS sum_disc_price,
    sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) AS sum_charge, avg(l_quantity) AS avg_qty,
    avg(l_extendedprice) AS avg_price, avg(l_discount) AS avg_disc, count(*) AS count_order
FROM lineitem WHERE l_shipdate <= %(d)s::DATE GROUP BY l_returnflag, l_linestatus
ORDER BY l_returnflag, l_linestatus""",
    "lineitem (l_shipdate) | lineitem (l_returnflag, l_linestatus)",
    {"d": "1998-09-02"},
)
add(
    "Q2, minimum cost supplier",
    """SELECT s_acctbal, s_name, n_name, p_partkey, p_mfgr, s_address, s_phone, s_comment
FROM part, supplier, partsupp, nation, region
WHERE p_partkey = ps_partkey AND s_suppkey = ps_suppkey AND p_size = %(s)s::INTEGER AND p_type LIKE %(t)s::VARCHAR
    AND s_nationkey = n_nationkey AND n_regionkey = r_regionkey AND r_name = %(r)s::VARCHAR
    AND ps_supplycost = (SELECT min(ps_supplycost) FROM partsupp, supplier, nation, region
        WHERE p_partkey = ps_partkey AND s_suppkey = ps_suppkey AND s_nationkey = n_nationkey
            AND n_regionkey = r_regionkey AND r_name = %(r)s::VARCHAR)
ORDER BY s_acctbal DESC, n_name, s_name, p_partkey LIMIT 100""",
    "part (p_size) | part (p_size, p_type) | partsupp (ps_suppkey)",
    {"s": 15, "t": "%BRASS", "r": "EUROPE"},
)
add(
    "Q3, shipping priority",
    """SELECT l_orderkey, sum(l_extendedprice * (1 - l_discount)) AS revenue, o_orderdate, o_shippriority
FROM customer, orders, lineitem
WHERE c_mktsegment = %(s)s::VARCHAR AND c_custkey = o_custkey AND l_orderkey = o_orderkey
    AND o_orderdate < %(d)s::DATE AND l_shipdate > %(d)s::DATE
GROUP BY l_orderkey, o_orderdate, o_shippriority ORDER BY revenue DESC, o_orderdate LIMIT 10""",
    "orders (o_custkey) | customer (c_mktsegment) | orders (o_orderdate) | lineitem (l_shipdate)",
    {"s": "BUILDING", "d": "1995-03-15"},
)
add(
    "Q4, order priority checking",
    """SELECT o_orderpriority, count(*) AS order_count FROM orders
WHERE o_orderdate >= %(d)s::DATE AND o_orderdate < %(d)s::DATE + INTERVAL '3 month'
    AND EXISTS (SELECT * FROM lineitem WHERE l_orderkey = o_orderkey AND l_commitdate < l_receiptdate)
GROUP BY o_orderpriority ORDER BY o_orderpriority""",
    "orders (o_orderdate) | orders (o_orderdate) INCLUDE (o_orderkey, o_orderpriority)",
    {"d": "1993-07-01"},
)
add(
    "Q5, local supplier volume",
    """SELECT n_name, sum(l_extendedprice * (1 - l_discount)) AS revenue
FROM customer, orders, lineitem, supplier, nation, region
WHERE c_custkey = o_custkey AND l_orderkey = o_orderkey AND l_suppkey = s_suppkey AND c_nationkey = s_nationkey
    AND s_nationkey = n_nationkey AND n_regionkey = r_regionkey AND r_name = %(r)s::VARCHAR
    AND o_orderdate >= %(d)s::DATE AND o_orderdate < %(d)s::DATE + INTERVAL '1 year'
GROUP BY n_name ORDER BY revenue DESC""",
    "orders (o_orderdate) | orders (o_custkey) | orders (o_custkey, o_orderdate) | lineitem (l_suppkey)",
    {"r": "ASIA", "d": "1994-01-01"},
)
add(
    "Q6, forecasting revenue change",
    """SELECT sum(l_extendedprice * l_discount) AS revenue FROM lineitem
WHERE l_shipdate >= %(d)s::DATE AND l_shipdate < %(d)s::DATE + INTERVAL '1 year'
    AND l_discount BETWEEN %(x)s::NUMERIC - 0.01 AND %(x)s::NUMERIC + 0.01 AND l_quantity < %(q)s::NUMERIC""",
    "lineitem (l_shipdate) | lineitem (l_shipdate) INCLUDE (l_discount, l_quantity, l_extendedprice)"
    " | lineitem (l_discount, l_shipdate)",
    {"d": "1994-01-01", "x": 0.06, "q": 24},
)
add(
    "Q7, volume shipping",
    """SELECT supp_nation, cust_nation, l_year, sum(volume) AS revenue
FROM (SELECT n1.n_name AS supp_nation, n2.n_name AS cust_nation, extract(year FROM l_shipdate) AS l_year,
        l_extendedprice * (1 - l_discount) AS volume
    FROM supplier, lineitem, orders, customer, nation n1, nation n2
    WHERE s_suppkey = l_suppkey AND o_orderkey = l_orderkey AND c_custkey = o_custkey AND s_nationkey = n1.n_nationkey
        AND c_nationkey = n2.n_nationkey AND ((n1.n_name = %(a)s::VARCHAR AND n2.n_name = %(b)s::VARCHAR)
            OR (n1.n_name = %(b)s::VARCHAR AND n2.n_name = %(a)s::VARCHAR))
        AND l_shipdate BETWEEN '1995-01-01'::DATE AND '1996-12-31'::DATE) AS shipping
GROUP BY supp_nation, cust_nation, l_year ORDER BY supp_nation, cust_nation, l_year""",
    "lineitem (l_suppkey) | orders (o_custkey) | lineitem (l_suppkey, l_shipdate) | lineitem (l_shipdate)",
    {"a": "FRANCE", "b": "GERMANY"},
)
add(
    "Q8, national market share",
    """SELECT o_year, sum(CASE WHEN nation = %(n)s::VARCHAR THEN volume ELSE 0 END) / sum(volume) AS mkt_share
FROM (SELECT extract(year FROM o_orderdate) AS o_year, l_extendedprice * (1 - l_discount) AS volume,
        n2.n_name AS nation
    FROM part, supplier, lineitem, orders, customer, nation n1, nation n2, region
    WHERE p_partkey = l_partkey AND s_suppkey = l_suppkey AND l_orderkey = o_orderkey AND o_custkey = c_custkey
        AND c_nationkey = n1.n_nationkey AND n1.n_regionkey = r_regionkey AND r_name = %(r)s::VARCHAR
        AND s_nationkey = n2.n_nationkey AND o_orderdate BETWEEN '1995-01-01'::DATE AND '1996-12-31'::DATE
        AND p_type = %(t)s::VARCHAR) AS all_nations
GROUP BY o_year ORDER BY o_year""",
    "lineitem (l_partkey) | lineitem (l_partkey, l_suppkey) | lineitem (l_partkey); part (p_type)",
    {"n": "BRAZIL", "r": "AMERICA", "t": "ECONOMY ANODIZED STEEL"},
)
add(
    "Q9, product type profit",
    """SELECT nation, o_year, sum(amount) AS sum_profit
FROM (SELECT n_name AS nation, extract(year FROM o_orderdate) AS o_year,
        l_extendedprice * (1 - l_discount) - ps_supplycost * l_quantity AS amount
    FROM part, supplier, lineitem, partsupp, orders, nation
    WHERE s_suppkey = l_suppkey AND ps_suppkey = l_suppkey AND ps_partkey = l_partkey AND p_partkey = l_partkey
        AND o_orderkey = l_orderkey AND s_nationkey = n_nationkey AND p_name LIKE %(p)s::VARCHAR) AS profit
GROUP BY nation, o_year ORDER BY nation, o_year DESC""",
    "lineitem (l_partkey) | lineitem (l_partkey, l_suppkey)",
    {"p": "%green%"},
)
add(
    "Q10, returned items",
    """SELECT c_custkey, c_name, sum(l_extendedprice * (1 - l_discount)) AS revenue, c_acctbal, n_name, c_address, c_phone,
    c_comment
FROM customer, orders, lineitem, nation
WHERE c_custkey = o_custkey AND l_orderkey = o_orderkey AND o_orderdate >= %(d)s::DATE
    AND o_orderdate < %(d)s::DATE + INTERVAL '3 month' AND l_returnflag = 'R' AND c_nationkey = n_nationkey
GROUP BY c_custkey, c_name, c_acctbal, c_phone, n_name, c_address, c_comment ORDER BY revenue DESC LIMIT 20""",
    "orders (o_orderdate) | lineitem (l_returnflag) | lineitem (l_orderkey) WHERE l_returnflag = 'R'",
    {"d": "1993-10-01"},
)
add(
    "Q11, important stock",
    """SELECT ps_partkey, sum(ps_supplycost * ps_availqty) AS value FROM partsupp, supplier, nation
WHERE ps_suppkey = s_suppkey AND s_nationkey = n_nationkey AND n_name = %(n)s::VARCHAR
GROUP BY ps_partkey HAVING sum(ps_supplycost * ps_availqty) > (
    SELECT sum(ps_supplycost * ps_availqty) * %(f)s::NUMERIC FROM partsupp, supplier, nation
    WHERE ps_suppkey = s_suppkey AND s_nationkey = n_nationkey AND n_name = %(n)s::VARCHAR)
ORDER BY value DESC""",
    "partsupp (ps_suppkey) | partsupp (ps_suppkey) INCLUDE (ps_partkey, ps_supplycost, ps_availqty)",
    {"n": "GERMANY", "f": 0.003},
)
add(
    "Q12, shipping modes",
    """SELECT l_shipmode,
    sum(CASE WHEN o_orderpriority = '1-URGENT' OR o_orderpriority = '2-HIGH' THEN 1 ELSE 0 END) AS high_line_count,
    sum(CASE WHEN o_orderpriority <> '1-URGENT' AND o_orderpriority <> '2-HIGH' THEN 1 ELSE 0 END) AS low_line_count
FROM orders, lineitem
WHERE o_orderkey = l_orderkey AND l_shipmode IN (%(a)s::VARCHAR, %(b)s::VARCHAR) AND l_commitdate < l_receiptdate
    AND l_shipdate < l_commitdate AND l_receiptdate >= %(d)s::DATE
    AND l_receiptdate < %(d)s::DATE + INTERVAL '1 year'
GROUP BY l_shipmode ORDER BY l_shipmode""",
    "lineitem (l_receiptdate) | lineitem (l_shipmode, l_receiptdate)",
    {"a": "MAIL", "b": "SHIP", "d": "1994-01-01"},
)
add(
    "Q13, customer distribution",
    """SELECT c_count, count(*) AS custdist
FROM (SELECT c_custkey, count(o_orderkey)
    FROM customer LEFT OUTER JOIN orders ON c_custkey = o_custkey AND o_comment NOT LIKE %(c)s::VARCHAR
    GROUP BY c_custkey) AS c_orders (c_custkey, c_count)
GROUP BY c_count ORDER BY custdist DESC, c_count DESC""",
    "orders (o_custkey) | orders (o_custkey) INCLUDE (o_orderkey, o_comment)",
    {"c": "%special%requests%"},
)
add(
    "Q14, promotion effect",
    """SELECT 100.00 * sum(CASE WHEN p_type LIKE 'PROMO%%' THEN l_extendedprice * (1 - l_discount) ELSE 0 END)
    / sum(l_extendedprice * (1 - l_discount)) AS promo_revenue
FROM lineitem, part
WHERE l_partkey = p_partkey AND l_shipdate >= %(d)s::DATE AND l_shipdate < %(d)s::DATE + INTERVAL '1 month'""",
    "lineitem (l_shipdate) | lineitem (l_shipdate) INCLUDE (l_partkey, l_extendedprice, l_discount)",
    {"d": "1995-09-01"},
)
add(
    "Q15, top supplier",
    """WITH revenue (supplier_no, total_revenue) AS (
    SELECT l_suppkey, sum(l_extendedprice * (1 - l_discount)) FROM lineitem
    WHERE l_shipdate >= %(d)s::DATE AND l_shipdate < %(d)s::DATE + INTERVAL '3 month' GROUP BY l_suppkey)
SELECT s_suppkey, s_name, s_address, s_phone, total_revenue FROM supplier, revenue
WHERE s_suppkey = supplier_no AND total_revenue = (SELECT max(total_revenue) FROM revenue) ORDER BY s_suppkey""",
    "lineitem (l_shipdate) | lineitem (l_shipdate) INCLUDE (l_suppkey, l_extendedprice, l_discount)",
    {"d": "1996-01-01"},
)
add(
    "Q16, parts and suppliers",
    """SELECT p_brand, p_type, p_size, count(DISTINCT ps_suppkey) AS supplier_cnt FROM partsupp, part
WHERE p_partkey = ps_partkey AND p_brand <> %(b)s::VARCHAR AND p_type NOT LIKE %(t)s::VARCHAR
    AND p_size IN (49, 14, 23, 45, 19, 3, 36, 9)
    AND ps_suppkey NOT IN (SELECT s_suppkey FROM supplier WHERE s_comment LIKE %(c)s::VARCHAR)
GROUP BY p_brand, p_type, p_size ORDER BY supplier_cnt DESC, p_brand, p_type, p_size""",
    "part (p_size) | part (p_brand, p_type, p_size)",
    {"b": "Brand#45", "t": "MEDIUM POLISHED%", "c": "%Customer%Complaints%"},
)
add(
    "Q17, small quantity orders",
    """SELECT sum(l_extendedprice) / 7.0 AS avg_yearly FROM lineitem, part
WHERE p_partkey = l_partkey AND p_brand = %(b)s::VARCHAR AND p_container = %(c)s::VARCHAR
    AND l_quantity < (SELECT 0.2 * avg(l_quantity) FROM lineitem WHERE l_partkey = p_partkey)""",
    "lineitem (l_partkey) | lineitem (l_partkey); part (p_brand, p_container)",
    {"b": "Brand#23", "c": "MED BOX"},
)
add(
    "Q18, large volume customers",
    """SELECT c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice, sum(l_quantity) FROM customer, orders, lineitem
WHERE o_orderkey IN (SELECT l_orderkey FROM lineitem GROUP BY l_orderkey HAVING sum(l_quantity) > %(q)s::NUMERIC)
    AND c_custkey = o_custkey AND o_orderkey = l_orderkey
GROUP BY c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice ORDER BY o_totalprice DESC, o_orderdate LIMIT 100""",
    "lineitem (l_orderkey) INCLUDE (l_quantity) | orders (o_custkey) | orders (o_totalprice DESC, o_orderdate)",
    {"q": 300},
)
add(
    "Q19, discounted revenue",
    """SELECT sum(l_extendedprice * (1 - l_discount)) AS revenue FROM lineitem, part
WHERE (p_partkey = l_partkey AND p_brand = 'Brand#12' AND p_container IN ('SM CASE', 'SM BOX', 'SM PACK', 'SM PKG')
        AND l_quantity >= 1 AND l_quantity <= 11 AND p_size BETWEEN 1 AND 5 AND l_shipmode IN ('AIR', 'REG AIR')
        AND l_shipinstruct = 'DELIVER IN PERSON')
    OR (p_partkey = l_partkey AND p_brand = 'Brand#23' AND p_container IN ('MED BAG', 'MED BOX', 'MED PKG', 'MED PACK')
        AND l_quantity >= 10 AND l_quantity <= 20 AND p_size BETWEEN 1 AND 10 AND l_shipmode IN ('AIR', 'REG AIR')
        AND l_shipinstruct = 'DELIVER IN PERSON')
    OR (p_partkey = l_partkey AND p_brand = 'Brand#34' AND p_container IN ('LG CASE', 'LG BOX', 'LG PACK', 'LG PKG')
        AND l_quantity >= 20 AND l_quantity <= 30 AND p_size BETWEEN 1 AND 15 AND l_shipmode IN ('AIR', 'REG AIR')
        AND l_shipinstruct = 'DELIVER IN PERSON')""",
    "lineitem (l_partkey) | lineitem (l_shipinstruct, l_shipmode) | lineitem (l_partkey); part (p_brand, p_container)",
)
add(
    "Q20, potential part promotion",
    """SELECT s_name, s_address FROM supplier, nation
WHERE s_suppkey IN (SELECT ps_suppkey FROM partsupp
        WHERE ps_partkey IN (SELECT p_partkey FROM part WHERE p_name LIKE %(p)s::VARCHAR)
            AND ps_availqty > (SELECT 0.5 * sum(l_quantity) FROM lineitem
                WHERE l_partkey = ps_partkey AND l_suppkey = ps_suppkey AND l_shipdate >= %(d)s::DATE
                    AND l_shipdate < %(d)s::DATE + INTERVAL '1 year'))
    AND s_nationkey = n_nationkey AND n_name = %(n)s::VARCHAR
ORDER BY s_name""",
    "lineitem (l_partkey) | lineitem (l_partkey, l_suppkey) | lineitem (l_partkey, l_suppkey, l_shipdate)",
    {"p": "forest%", "d": "1994-01-01", "n": "CANADA"},
)
add(
    "Q21, suppliers who kept orders waiting",
    """SELECT s_name, count(*) AS numwait FROM supplier, lineitem l1, orders, nation
WHERE s_suppkey = l1.l_suppkey AND o_orderkey = l1.l_orderkey AND o_orderstatus = 'F'
    AND l1.l_receiptdate > l1.l_commitdate
    AND EXISTS (SELECT * FROM lineitem l2 WHERE l2.l_orderkey = l1.l_orderkey AND l2.l_suppkey <> l1.l_suppkey)
    AND NOT EXISTS (SELECT * FROM lineitem l3 WHERE l3.l_orderkey = l1.l_orderkey AND l3.l_suppkey <> l1.l_suppkey
        AND l3.l_receiptdate > l3.l_commitdate)
    AND s_nationkey = n_nationkey AND n_name = %(n)s::VARCHAR
GROUP BY s_name ORDER BY numwait DESC, s_name LIMIT 100""",
    "lineitem (l_suppkey) | lineitem (l_suppkey) WHERE l_receiptdate > l_commitdate | orders (o_orderstatus)",
    {"n": "SAUDI ARABIA"},
)
add(
    "Q22, global sales opportunity",
    """SELECT cntrycode, count(*) AS numcust, sum(c_acctbal) AS totacctbal
FROM (SELECT substring(c_phone FROM 1 FOR 2) AS cntrycode, c_acctbal FROM customer
    WHERE substring(c_phone FROM 1 FOR 2) IN ('13', '31', '23', '29', '30', '18', '17')
        AND c_acctbal > (SELECT avg(c_acctbal) FROM customer
            WHERE c_acctbal > 0.00 AND substring(c_phone FROM 1 FOR 2) IN ('13', '31', '23', '29', '30', '18', '17'))
        AND NOT EXISTS (SELECT * FROM orders WHERE o_custkey = c_custkey)) AS custsale
GROUP BY cntrycode ORDER BY cntrycode""",
    "orders (o_custkey) | customer ((substring(c_phone FROM 1 FOR 2))) | customer (c_acctbal)",
)


def ask(statement: str, tried: str, *values: dict[str, Any]) -> None:
    add("", statement, tried, *values, heading="As an application would ask")


ask(
    "SELECT * FROM orders WHERE o_custkey = %(c)s::INTEGER",
    "orders (o_custkey)",
    {"c": 1234}, {"c": 77}, {"c": 401},
)  # fmt: skip
ask(
    "SELECT * FROM orders WHERE o_custkey = %(c)s::INTEGER ORDER BY o_orderdate DESC LIMIT 10",
    "orders (o_custkey, o_orderdate)",
    {"c": 1234}, {"c": 77}, {"c": 401},
)  # fmt: skip
ask("SELECT * FROM lineitem WHERE l_orderkey = %(o)s::INTEGER", "lineitem (l_orderkey)", {"o": 3205})
ask("SELECT * FROM lineitem WHERE l_partkey = %(p)s::INTEGER", "lineitem (l_partkey)", {"p": 123}, {"p": 124})
ask(
    "SELECT * FROM lineitem WHERE l_partkey = %(p)s::INTEGER AND l_suppkey = %(s)s::INTEGER",
    "lineitem (l_partkey, l_suppkey)",
    {"p": 123, "s": 124},
)
ask(
    "SELECT sum(l_quantity) FROM lineitem WHERE l_suppkey = %(s)s::INTEGER AND l_shipdate >= %(d)s::DATE",
    "lineitem (l_suppkey, l_shipdate)",
    {"s": 77, "d": "1998-06-01"},
)
ask("SELECT * FROM orders ORDER BY o_orderdate DESC, o_orderkey DESC LIMIT 50", "orders (o_orderdate, o_orderkey)")
ask(
    "SELECT * FROM orders WHERE o_orderdate BETWEEN %(a)s::DATE AND %(b)s::DATE",
    "orders (o_orderdate)",
    {"a": "1996-03-01", "b": "1996-03-07"},
)
ask(
    "SELECT count(*) FROM orders WHERE o_orderstatus = %(s)s::VARCHAR",
    "orders (o_orderstatus)",
    {"s": "P"}, {"s": "F"}, {"s": "O"},
)  # fmt: skip
ask(
    "SELECT * FROM orders WHERE o_clerk = %(c)s::VARCHAR AND o_orderdate >= %(d)s::DATE ORDER BY o_orderdate",
    "orders (o_clerk, o_orderdate)",
    {"c": "Clerk#000000012", "d": "1998-01-01"},
)
ask(
    "SELECT * FROM orders WHERE o_orderpriority = %(p)s::VARCHAR AND o_orderstatus = %(s)s::VARCHAR"
    " ORDER BY o_orderdate LIMIT 20",
    "orders (o_orderpriority, o_orderstatus, o_orderdate)",
    {"p": "1-URGENT", "s": "P"}, {"p": "2-HIGH", "s": "P"}, {"p": "5-LOW", "s": "P"},
)  # fmt: skip
ask(
    "SELECT o.*, c.c_name FROM orders AS o JOIN customer AS c ON c.c_custkey = o.o_custkey"
    " WHERE o.o_totalprice > %(p)s::NUMERIC ORDER BY o.o_totalprice DESC LIMIT 20",
    "orders (o_totalprice)",
    {"p": 390000},
)
ask(
    "SELECT c.c_custkey, c.c_name, o.o_orderkey, o.o_totalprice FROM customer AS c"
    " LEFT OUTER JOIN orders AS o ON o.o_custkey = c.c_custkey WHERE c.c_custkey = %(c)s::INTEGER",
    "orders (o_custkey)",
    {"c": 1234},
)
ask(
    "SELECT count(*) FROM orders WHERE o_custkey IN (%(a)s::INTEGER, %(b)s::INTEGER, %(c)s::INTEGER)",
    "orders (o_custkey)",
    {"a": 5, "b": 77, "c": 4000},
)
ask(
    "SELECT * FROM partsupp WHERE ps_suppkey = %(s)s::INTEGER ORDER BY ps_supplycost LIMIT 10",
    "partsupp (ps_suppkey) | partsupp (ps_suppkey, ps_supplycost)",
    {"s": 77},
)
ask("SELECT * FROM partsupp WHERE ps_availqty < %(q)s::INTEGER", "partsupp (ps_availqty)", {"q": 50})
ask(
    "SELECT * FROM part WHERE p_brand = %(b)s::VARCHAR AND p_container = %(c)s::VARCHAR",
    "part (p_brand, p_container)",
    {"b": "Brand#23", "c": "MED BOX"},
)
ask("SELECT * FROM part WHERE p_name LIKE %(n)s::VARCHAR || '%%'", "part (p_name text_pattern_ops)", {"n": "forest b"})
ask("SELECT * FROM customer WHERE c_name = %(n)s::VARCHAR", "customer (c_name)", {"n": "Customer#000000077"})
ask("SELECT * FROM customer WHERE c_phone = %(p)s::VARCHAR", "customer (c_phone)", {"p": "25-989-741-2988"})
ask(
    "SELECT * FROM customer WHERE c_mktsegment = %(m)s::VARCHAR ORDER BY c_acctbal DESC LIMIT 20",
    "customer (c_mktsegment, c_acctbal)",
    {"m": "BUILDING"}, {"m": "FURNITURE"},
)  # fmt: skip
ask(
    "SELECT l_shipmode, count(*) FROM lineitem WHERE l_receiptdate > %(d)s::DATE GROUP BY l_shipmode",
    "lineitem (l_receiptdate) | lineitem (l_receiptdate, l_shipmode)",
    {"d": "1998-11-01"},
)
ask("SELECT max(l_shipdate) FROM lineitem", "lineitem (l_shipdate)")
ask("SELECT * FROM lineitem WHERE l_returnflag = %(r)s::VARCHAR", "lineitem (l_returnflag)", {"r": "N"})
ask("SELECT * FROM lineitem WHERE l_comment LIKE %(c)s::VARCHAR", "lineitem (l_comment)", {"c": "%foxes%"})
ask("SELECT * FROM orders ORDER BY o_orderkey DESC LIMIT 20", "orders (o_orderkey DESC)")


def fill(psql: Any, rows: int = ROWS) -> None:
    """Make the tables, with about *rows* in lineitem. *psql* runs a script."""
    psql(SCHEMA.replace("{rows}", str(rows)))
