BEGIN TRANSACTION;
CREATE TABLE "change"(
    "id" INTEGER PRIMARY KEY AUTOINCREMENT,
    "revision" INTEGER REFERENCES "revision" ("id") ON DELETE RESTRICT ON UPDATE CASCADE  NOT NULL ,
    "kind" CHAR(63) NOT NULL,
    "cluster" CHAR(63),
    "name" CHAR(63) NOT NULL,
    "before" TEXT,
    "after" TEXT
);
INSERT INTO "change" VALUES(1,1,'cluster',NULL,'default',NULL,'{"name":"default"}');
INSERT INTO "change" VALUES(2,2,'interface',NULL,'eth0',NULL,'{"name":"eth0","role":"inside"}');
INSERT INTO "change" VALUES(3,2,'interface',NULL,'eth1',NULL,'{"mode":"tc","name":"eth1","role":"outside"}');
INSERT INTO "change" VALUES(4,2,'service','default','clients',NULL,'{"addresses":["10.1.0.0/16","2001:db8:1::/64"],"name":"clients"}');
INSERT INTO "change" VALUES(5,2,'service','default','web',NULL,'{"addresses":["10.2.0.10","10.2.0.11","db.example.com"],"auth":"token","collection":"red","description":"größer","health":"http:/healthz","health_interval":5,"name":"web","port":8080,"protocol":"tcp","tags":["a","b"],"tls":true,"weight":3}');
INSERT INTO "change" VALUES(6,2,'mapping','default','cw',NULL,'{"auth_required":true,"description":"x","destinations":["collection:red"],"expires":"2030-01-31T18:00:00Z","host":"*.example.com","listen":"10.1.0.1:80","name":"cw","path_prefix":"/a","ports":"443,8000-8100","priority":10,"protocols":["http","https"],"sources":["clients"]}');
INSERT INTO "change" VALUES(7,2,'mapping','default','no',NULL,'{"action":"deny","destinations":["all"],"name":"no","protocols":["icmp"],"sources":["external"]}');
INSERT INTO "change" VALUES(8,2,'cluster',NULL,'lab',NULL,'{"name":"lab"}');
INSERT INTO "change" VALUES(9,2,'service','lab','web',NULL,'{"addresses":["10.9.0.1"],"name":"web"}');
INSERT INTO "change" VALUES(10,3,'interface',NULL,'eth1','{"mode":"tc","name":"eth1","role":"outside"}',NULL);
INSERT INTO "change" VALUES(11,3,'service','lab','web','{"addresses":["10.9.0.1"],"name":"web"}',NULL);
INSERT INTO "change" VALUES(12,3,'cluster',NULL,'lab','{"name":"lab"}',NULL);
CREATE TABLE "cluster"(
    "id" INTEGER PRIMARY KEY AUTOINCREMENT,
    "name" CHAR(63) NOT NULL UNIQUE
);
INSERT INTO "cluster" VALUES(1,'default');
CREATE TABLE "cluster_key"(
    "id" INTEGER PRIMARY KEY AUTOINCREMENT,
    "cluster" INTEGER REFERENCES "cluster" ("id") ON DELETE CASCADE ON UPDATE CASCADE  NOT NULL ,
    "hash" CHAR(64) NOT NULL UNIQUE,
    "created" TIMESTAMP NOT NULL,
    "expires" TIMESTAMP
);
INSERT INTO "cluster_key" VALUES(1,1,'4877ff4984dac2db5a4a49989bace8c55fce166b8d91e43bdf77386eae52a690','2026-11-21 10:43:30',NULL);
CREATE TABLE "interface"(
    "id" INTEGER PRIMARY KEY AUTOINCREMENT,
    "name" CHAR(63) NOT NULL UNIQUE,
    "role" TEXT NOT NULL,
    "mode" TEXT NOT NULL
);
INSERT INTO "interface" VALUES(1,'eth0','inside','auto');
CREATE TABLE "mapping"(
    "id" INTEGER PRIMARY KEY AUTOINCREMENT,
    "cluster" INTEGER REFERENCES "cluster" ("id") ON DELETE RESTRICT ON UPDATE CASCADE  NOT NULL ,
    "name" CHAR(63) NOT NULL,
    "sources" TEXT NOT NULL,
    "destinations" TEXT NOT NULL,
    "protocols" TEXT NOT NULL,
    "ports" TEXT NOT NULL,
    "listen" TEXT,
    "priority" INTEGER NOT NULL,
    "action" TEXT NOT NULL,
    "host" TEXT,
    "path_prefix" TEXT,
    "auth_required" CHAR(1) NOT NULL,
    "expires" TIMESTAMP,
    "description" TEXT NOT NULL
);
INSERT INTO "mapping" VALUES(1,1,'cw','["clients"]','["collection:red"]','["http","https"]','443,8000-8100','10.1.0.1:80',10,'allow','*.example.com','/a','T','2030-01-31 18:00:00','x');
INSERT INTO "mapping" VALUES(2,1,'no','["external"]','["all"]','["icmp"]','',NULL,100,'deny',NULL,NULL,'F',NULL,'');
CREATE TABLE "migration"(
    "id" INTEGER PRIMARY KEY AUTOINCREMENT,
    "number" INTEGER UNIQUE,
    "name" CHAR(63),
    "time" TIMESTAMP NOT NULL
);
INSERT INTO "migration" VALUES(1,1,'first_tables','2026-11-21 10:43:30');
CREATE TABLE "revision"(
    "id" INTEGER PRIMARY KEY AUTOINCREMENT,
    "number" INTEGER NOT NULL UNIQUE,
    "time" TIMESTAMP NOT NULL,
    "author" CHAR(64) NOT NULL,
    "message" CHAR(500) NOT NULL,
    "sha256" CHAR(64) NOT NULL
);
INSERT INTO "revision" VALUES(1,1,'2026-11-21 10:43:30','root','create the store','e5877eb4a96237254a6997f4d306207317d3e3e230502ecabd9507331eb3fa1a');
INSERT INTO "revision" VALUES(2,2,'2026-11-21 10:43:30','ada','site','54d9437c1adff3b33067609b053be64128f7f7ea12ba32636a833b7acaf6040c');
INSERT INTO "revision" VALUES(3,3,'2026-11-21 10:43:30','ada','without lab','d7bb782dc589e5d995f35ba816eb26dcfe74c3133068f8ed418fe8945d02292e');
CREATE TABLE "service"(
    "id" INTEGER PRIMARY KEY AUTOINCREMENT,
    "cluster" INTEGER REFERENCES "cluster" ("id") ON DELETE RESTRICT ON UPDATE CASCADE  NOT NULL ,
    "name" CHAR(63) NOT NULL,
    "addresses" TEXT NOT NULL,
    "port" INTEGER,
    "protocol" TEXT,
    "collection" CHAR(63),
    "tags" TEXT NOT NULL,
    "auth" TEXT NOT NULL,
    "weight" INTEGER NOT NULL,
    "tls" CHAR(1) NOT NULL,
    "health" TEXT NOT NULL,
    "health_interval" INTEGER,
    "description" TEXT NOT NULL
);
INSERT INTO "service" VALUES(1,1,'clients','["10.1.0.0/16","2001:db8:1::/64"]',NULL,NULL,NULL,'[]','none',1,'F','none',NULL,'');
INSERT INTO "service" VALUES(2,1,'web','["10.2.0.10","10.2.0.11","db.example.com"]',8080,'tcp','red','["a","b"]','token',3,'T','http:/healthz',5,'größer');
CREATE UNIQUE INDEX "service_cluster_name" ON "service" ("cluster","name");
CREATE UNIQUE INDEX "mapping_cluster_name" ON "mapping" ("cluster","name");
CREATE INDEX "change_revision" ON "change" ("revision");
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('migration',1);
INSERT INTO "sqlite_sequence" VALUES('revision',3);
INSERT INTO "sqlite_sequence" VALUES('change',12);
INSERT INTO "sqlite_sequence" VALUES('cluster',2);
INSERT INTO "sqlite_sequence" VALUES('interface',2);
INSERT INTO "sqlite_sequence" VALUES('service',3);
INSERT INTO "sqlite_sequence" VALUES('mapping',2);
INSERT INTO "sqlite_sequence" VALUES('cluster_key',1);
COMMIT;
