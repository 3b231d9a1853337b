-- Run at each start of MySQL and of MariaDB: the user of tests and connectors, over TCP and with every right.
CREATE USER IF NOT EXISTS 'cdc'@'%' IDENTIFIED BY 'cdc';
GRANT ALL PRIVILEGES ON *.* TO 'cdc'@'%' WITH GRANT OPTION;
