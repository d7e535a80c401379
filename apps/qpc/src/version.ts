/** Here, not read from package.json: `qpc --version` opens no file. A test compares the two. */
export const VERSION = '0.1.0';
