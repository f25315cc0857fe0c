"""The style sheet of ``report.html``. The figures' ink and grid are its variables, so they follow the page."""

from __future__ import annotations

CSS = """
:root{color-scheme:light dark;--ink:#1a1d21;--grid:#d9dde2;--paper:#fff;--soft:#f3f5f7;--quiet:#5b6470;--line:#d0d5db;
--link:#005a9c;--bad:#a30000;--badpaper:#fde8e8;--good:#00694b;--control:#fff3e6}
@media (prefers-color-scheme:dark){:root{--ink:#e8eaed;--grid:#3a4048;--paper:#15181c;--soft:#1e2227;--quiet:#a4acb6;
--line:#3a4048;--link:#7cc0ff;--bad:#ff9c92;--badpaper:#4a1512;--good:#58d3a8;--control:#33261a}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,
-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1120px;margin:0 auto;padding:1rem 1rem 4rem}
h1{font-size:1.7rem;line-height:1.2;margin:.6rem 0 .3rem;overflow-wrap:anywhere}
h2{font-size:1.3rem;margin:2.6rem 0 .6rem;padding-top:.7rem;border-top:2px solid var(--line)}
h3{font-size:1rem;margin:1.2rem 0 .4rem}
p,li{max-width:75ch}
a{color:var(--link)}
.scope,.note,.missing,figcaption{color:var(--quiet);font-size:.87rem}
.banner{background:var(--badpaper);color:var(--bad);border:2px solid var(--bad);border-radius:6px;padding:.7rem 1rem;
font-weight:700;max-width:none}
.summary{background:var(--soft);border-radius:6px;padding:.9rem 1rem .9rem 2rem;margin:0}
.summary li{margin:.3rem 0}
nav ul{columns:16rem;padding-left:1.2rem;font-size:.93rem}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));gap:.4rem 2rem;
align-items:start}
figure{margin:0;min-width:0;max-width:600px}
figure.wide{grid-column:1/-1;max-width:none}
.draw{overflow-x:auto}
.draw svg{display:block;width:100%;height:auto}
figure.wide svg{min-width:680px;max-width:960px}
.draw svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif!important}
figcaption{margin:.3rem 0 .8rem}
.scroll{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.87rem;font-variant-numeric:tabular-nums}
th,td{padding:.28rem .7rem .28rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line);
font-weight:400;
max-width:26rem;overflow-wrap:break-word}
tbody th{overflow-wrap:anywhere;min-width:7.5rem}td.figure+td:not(.figure),th.figure+th:not(.figure){padding-left:1rem}
.dense small{display:block}
thead th{font-weight:600;vertical-align:bottom;min-width:4.5rem;max-width:9.5rem;overflow-wrap:normal;line-height:1.25}
th.figure,td.figure{text-align:right;padding:.28rem .35rem .28rem .8rem}
td.figure{white-space:nowrap}
small{color:var(--quiet);font-size:.85em}
tbody th{position:sticky;left:0;background:var(--paper)}
tr.control th,tr.control td{background:var(--control)}
tr.best th,tr.best td{font-weight:700}
tr.pass th{color:var(--good);font-weight:700}
tr.fail th,tr.fail td{color:var(--bad);font-weight:700}
details{margin:.8rem 0;border:1px solid var(--line);border-radius:6px;padding:.3rem .8rem}
summary{cursor:pointer;font-weight:600;font-size:.95rem;padding:.2rem 0}
@media print{:root{--ink:#000;--grid:#ddd;--paper:#fff;--soft:#f5f5f5;--quiet:#444;--line:#bbb;--link:#000;
--bad:#a30000;--badpaper:#fff;--good:#00553c;--control:#fff3e6;color-scheme:light}
body{font-size:10pt}main{max-width:none;padding:0}nav{display:none}figure,tr,.summary{break-inside:avoid}
h2,h3{break-after:avoid}
.scroll,.draw{overflow:visible}table{font-size:7.5pt}td.figure{white-space:normal}tbody th{position:static}
details::details-content{content-visibility:visible;height:auto}
figure.wide svg{min-width:0}}
"""
